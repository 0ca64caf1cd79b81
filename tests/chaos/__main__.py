"""The long mode: `python -m tests.chaos --long [--runs 1000] [--seed N]`; `--only NAME` repeats one experiment."""

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.experiment import Laboratory
from tests.chaos.laboratories import on_s3
from tests.chaos.phases import catalogue
from tests.chaos.series import AT_ONCE, conduct_all
from tests.chaos.warm import Warm
from tests.servers import moto_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--long", action="store_true", help="every edge of every group, and random ones up to --runs")
    parser.add_argument("--runs", type=int, default=1000, help="experiments in all; each is two runs or more")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", metavar="NAME", help="one experiment, or one group, by the name a failure tells")
    parser.add_argument("--at-once", type=int, default=AT_ONCE)
    given = parser.parse_args()
    edges = len(catalogue(given.seed, 0))
    experiments = catalogue(given.seed, max(0, given.runs - edges) if given.long else 1000)
    if given.only:
        experiments = {name: each for name, each in experiments.items() if given.only in (name, name.partition("-")[0])}
    elif not given.long:
        parser.error("say --long, or --only NAME")
    print(f"seed {given.seed}, {len(experiments)} experiments", flush=True)
    began = time.monotonic()
    with contextlib.ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory(prefix="sft-chaos-")))
        warm = Warm(folder / "log")
        open_things.callback(warm.close)
        places = {"folder": Laboratory(folder / "folder", warm)}
        if any(name.startswith("s3-") for name in experiments):
            endpoint = open_things.enter_context(moto_server(folder / "moto"))
            places["s3"] = open_things.enter_context(on_s3(warm, endpoint, folder / "s3", "chaos"))
        failures = conduct_all(
            lambda name: places["s3" if name.startswith("s3-") else "folder"],
            experiments,
            given.seed,
            lambda line: print(line, flush=True),
            given.at_once,
        )
    print("\n\n".join(failures))
    print(f"{len(failures)} of {len(experiments)} failed; seed {given.seed}; {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
