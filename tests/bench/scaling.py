"""What more ranks and nodes cost: start-up, our part of each step, restoring, requests to the store.

Run as `python -m tests.bench.scaling [--only starts|steps|restoring|requests] [--repeats N] [--quick]`. Prints Markdown
tables; exit code 1 where checkpoints are read more often on several nodes or ranks than on one. `--quick`: the smallest
sizes and one repeat of everything: whether it runs, not how fast.
"""

import argparse
import os
import platform
import statistics
import sys
from importlib import metadata

from tests.bench import first_step, restoring, step_cost, store_requests
from tests.bench.recovery import spread, table
from tests.bench.step_cost import CPU, WALL, StepCost
from tests.bench.store_requests import KINDS, Machines

PARTS = ("starts", "steps", "restoring", "requests")
SMALL, LARGE = (64, 2), (256, 6)  # hidden size, layers: a step of about 15 ms, and of about 100 ms, on one core
STEPS = {SMALL: 400, LARGE: 120}
MOST_EXTRA_SECONDS, MOST_EXTRA_SHARE = 1e-3, 0.02  # the share: of steps of 100 ms
SIZES = {30: 504, 300: 504, 1000: 300}  # state in MB -> tensors: adapters of 36 layers, a small model in full
MACHINES = (Machines(1, 1), Machines(1, 2), Machines(2, 1), Machines(3, 1))


def starts(repeats: int, quick: bool) -> None:
    found = first_step.measured(first_step.WAYS[: 2 if quick else None], repeats)
    table(
        f"From the command to the first step, s: median (worst) of {repeats} in turns",
        ["", *first_step.PHASES],
        [[str(one.way), *[spread(one.of(phase)) for phase in first_step.PHASES]] for one in found],
    )


def steps(quick: bool) -> None:
    rows = []
    for size, many in list(STEPS.items())[: 1 if quick else None]:
        for ranks in (1, 2):
            one = step_cost.measured(*size, ranks, 40 if quick else many)
            rows.append([f"{'single' if ranks == 1 else 'ddp, 2 ranks'}", *of_steps(one, share=size == LARGE)])
    table(
        "A step beside one of a bare accelerate loop, medians",
        ["", "bare, ms", "ours more, ms", "share", "bare, CPU ms of a rank", "ours more, CPU ms", "steps"],
        rows,
    )


def of_steps(one: StepCost, share: bool) -> list[str]:
    """`share`: that bound holds too."""
    extra, part = one.extra_seconds(WALL), one.extra_seconds(WALL) / one.bare_seconds(WALL)
    return [
        f"{1e3 * one.bare_seconds(WALL):.1f}",
        f"{1e3 * extra:.2f}{missed(extra, MOST_EXTRA_SECONDS)}",
        f"{part:.1%}{missed(part, MOST_EXTRA_SHARE) if share else ''}",
        f"{1e3 * one.bare_seconds(CPU):.1f}",
        f"{1e3 * one.extra_seconds(CPU):.2f}",
        str(len(one.ours)),
    ]


def missed(value: float, limit: float) -> str:
    return "" if value <= limit else " MISSED"


def restored(repeats: int, quick: bool) -> None:
    rows = []
    for size, tensors in list(SIZES.items())[: 1 if quick else None]:
        one = restoring.measured(size, tensors, repeats)
        ratio = statistics.median(one.ours) / statistics.median(one.plain)
        rows.append([
            f"{one.state_bytes / 1e6:,.0f} MB in {3 * tensors:,} tensors",
            spread(one.ours),
            spread(one.plain),
            f"{ratio:.2f}",
        ])  # fmt: skip
    table(
        f"A snapshot read by one rank and told to the other, s: median (worst) of {repeats} in turns",
        ["state", "sft-job", "plain read and one broadcast", "ratio"],
        rows,
    )


def requests(quick: bool) -> bool:
    """Whether checkpoints are read no more often on several."""
    found = store_requests.measured([MACHINES[0], MACHINES[2]] if quick else MACHINES)
    table(
        "Requests to the store, from the command to the end after a first step",
        ["", "", *KINDS],
        [
            [str(one.machines), name, *[str(count[kind]) for kind in KINDS]]
            for one in found
            for name, count in (("fresh start", one.fresh), ("resumed", one.resumed))
        ],
    )
    grown = store_requests.growth(found)
    for sentence in grown:
        print(f"\nMISSED: {sentence}")
    return not grown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    parts = [chosen.only] if chosen.only else list(PARTS)
    repeats = 1 if chosen.quick else chosen.repeats
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "accelerate"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}")
    if "starts" in parts:
        starts(repeats, chosen.quick)
    if "steps" in parts:
        steps(chosen.quick)
    if "restoring" in parts:
        restored(repeats, chosen.quick)
    good = requests(chosen.quick) if "requests" in parts else True
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
