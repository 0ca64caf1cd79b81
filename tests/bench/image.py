"""What the image weighs, how long it takes to build, and how long a container takes to its help and its first step.

Run as root as `python -m tests.bench.image [--cold] [REPEATS]`; the image is the tests' own, on their base. `--cold`
builds it anew, without any layer. Starts are cold where the page cache was dropped first, warm otherwise.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.container.building import Image, build
from tests.container.conftest import CONFIG_TEXT
from tests.container.containers import CONFIG, Container
from tests.container.networks import network, store
from tests.container.runtime import alone, missing, newest

MEGABYTE = 1e6


def main(arguments: list[str]) -> None:
    if why := missing():
        sys.exit(why)
    cold, repeats = "--cold" in arguments, int(next((one for one in arguments if one.isdigit()), "5"))
    with tempfile.TemporaryDirectory() as folder:
        with alone():
            runtime = newest()
            if cold:
                runtime.remove()
                runtime.prepare()
            began = time.monotonic()
            image = build(runtime, Path(folder))
            built = time.monotonic() - began
        Console().print(sizes(image))
        how = "all wheels fetched, on a base that is there" if cold else "with the layers there are"
        print(f"build: {built:.0f} s, {how}")
        Console().print(starts(image, Path(folder), repeats))


def sizes(image: Image) -> Table:
    """By layer; beside them what all wheels hold, unpacked, as they themselves record it."""
    layers = list(zip(("base", "dependencies", "sft-job and tini"), image.layers_bytes(), strict=True))
    held = image.wheels_bytes()
    table = Table("layer", "MB", "of the wheels", title=f"{image.name}; all wheels unpacked: {held / MEGABYTE:,.0f} MB")
    for name, size in [*layers, ("in all", sum(size for _, size in layers))]:
        table.add_row(name, f"{size / MEGABYTE:,.1f}", f"{size / held:.2f}")
    return table


def starts(image: Image, folder: Path, repeats: int) -> Table:
    table = Table("from `podman run` to", "page cache", "median s", "least", "most", title=f"{repeats} starts each")
    with network(image) as place, store(place, folder) as bucket:
        config = folder / "run.yaml"
        config.write_text(CONFIG_TEXT.format(root=bucket.uri), encoding="utf-8")
        options = (f"--network={place.name}", f"--volume={config}:{CONFIG}:ro")

        def helped(_: str) -> Container:
            container = Container(image, folder, ["--help"], ("--network=none",))
            container.finished()
            return container

        def stepped(name: str) -> Container:
            words = ["run", CONFIG, "--set", f"run={bucket.uri}/runs/{name}", "--set", "train.logging_steps=1"]
            container = Container(image, folder, words, options, bucket.env)
            container.wait_for(r"step 1/\d+  loss")
            return container

        for what, act in (("the end of `--help`", helped), ("the first step of a tiny run", stepped)):
            for warm in (False, True):
                seconds = [_timed(act, f"{'warm' if warm else 'cold'}-{number}", warm) for number in range(repeats)]
                middle, least, most = statistics.median(seconds), min(seconds), max(seconds)
                table.add_row(what, "warm" if warm else "cold", f"{middle:.1f}", f"{least:.1f}", f"{most:.1f}")
    return table


def _timed(act: Callable[[str], Container], name: str, warm: bool) -> float:
    if not warm:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
    began = time.monotonic()
    container = act(name)
    seconds = time.monotonic() - began
    container.remove()
    return seconds


if __name__ == "__main__":
    main(sys.argv[1:])
