"""What never losing a run costs and saves: blocking, uploads, leaving, returning, steps lost, goodput.

Run as `python -m tests.bench.recovery [--only blocking|interrupted|goodput] [--repeats N] [--quick]`. Prints Markdown
tables. The figures that the simulation takes from the other parts are this run's where they were measured in it, else
the last recorded ones. `--quick`: the small state only, one repeat of everything: whether it runs, not how fast.
"""

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from tests.bench.blocking import Blocking, measured
from tests.bench.goodput import Figures, goodputs
from tests.bench.interrupted import EVERY_STEPS, Found, interrupted, places

PARTS = ("blocking", "interrupted", "goodput")
SIZES = {300: 504, 2000: 200}  # state in MB -> tensors: an adapter of 36 layers, a small model in full
NODES = (1, 8, 64, 512)
BETWEEN = {"10 min": 600.0, "1 h": 3600.0, "6 h": 21600.0}
MOST_COPY_RATIO, LEAST_SAVE_RATIO, MOST_UPLOAD_RATIO = 1.5, 10.0, 1.02
UPLOAD_BYTES_PER_SECOND = 200e6  # assumed for the simulation: the stores here are this machine's own disk

Rows = list[list[str]]


def table(title: str, head: Sequence[str], rows: Rows) -> None:
    print(f"\n**{title}**\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def spread(seconds: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Median (worst)."""
    return f"{statistics.median(seconds) * scale:.{digits}f} ({max(seconds) * scale:.{digits}f})"


def verdict(value: float, limit: float, at_most: bool = True) -> str:
    met = value <= limit if at_most else value >= limit
    return f"{value:.2f}x ({'' if met else 'MISSED, '}{'at most' if at_most else 'at least'} {limit:g}x)"


# ---- blocking


def blocking(repeats: int, quick: bool) -> list[Blocking]:
    found = [
        measured(size, tensors, repeats, ranks)
        for size, tensors in list(SIZES.items())[: 1 if quick else None]
        for ranks in (1, 2)
    ]
    rows = []
    for one in found:
        ours, copy = statistics.median(one.ours), statistics.median(one.copy)
        rows.append([
            f"{one.state_bytes / 1e6:,.0f} MB, {'one process' if one.ranks == 1 else f'ddp, {one.ranks} ranks'}",
            spread(one.ours, 1e3, 0),
            spread(one.copy, 1e3, 0),
            verdict(ours / copy, MOST_COPY_RATIO),
            spread(one.theirs, 1e3, 0) if one.theirs else "",
            verdict(statistics.median(one.theirs) / ours, LEAST_SAVE_RATIO, at_most=False) if one.theirs else "",
            spread(one.written),
        ])  # fmt: skip
    table(
        f"Blocking per checkpoint, median (worst) of {repeats} in turns",
        ["state", "sft-job, ms", "memcpy, ms", "ours / memcpy", "Trainer._save_checkpoint, ms", "theirs / ours",
         "written beside training, s"],
        rows,
    )  # fmt: skip
    return found


# ---- real runs


def real_runs(turns: int) -> dict[str, Found]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with places(root) as stores:
            found = {
                name: interrupted(place, place.store("bench"), root / f"phases-{name}", turns)
                for name, place in stores.items()
            }
    names = list(found)
    uploads = {name: max(size for _, _, size in one.uploads) for name, one in found.items()}
    table(
        f"A real run, stopped {turns + 1} times and killed {turns} times; median (worst)",
        ["", *names],
        [
            ["from TERM to exit 75, commit in storage, s", *[spread(one.leave) for one in found.values()]],
            ["steps lost at TERM", *[spread(one.lost_at_term, digits=0) for one in found.values()]],
            [
                f"steps lost at KILL, a checkpoint every {EVERY_STEPS}",
                *[spread(one.lost_at_kill, digits=0) for one in found.values()],
            ],
            *[
                [
                    f"start to first resumed step: {phase}, s",
                    *[spread([start.get(phase, 0.0) for start in one.starts]) for one in found.values()],
                ]
                for phase in ("start and pull", "import", "load", "restore", "first step", "in all")
            ],
            [
                "a commit's bytes / trainable and optimizer bytes",
                *[verdict(uploads[name] / found[name].state_bytes, MOST_UPLOAD_RATIO) for name in names],
            ],
            ["of them base weights (of so many bytes)", *[base_share(one) for one in found.values()]],
        ],
    )
    return found


def base_share(found: Found) -> str:
    strange = [name for name in found.tensors if "lora_" not in name]
    return f"{len(strange)} tensors ({found.base_bytes:,})" if not strange else f"MISSED: {strange[0]}"


# ---- goodput


def simulated(at: Figures) -> None:
    rows = []
    for between_text, between in BETWEEN.items():
        for nodes in NODES:
            found = goodputs(at, between / nodes)
            rows.append([between_text, str(nodes), *[f"{100 * share:.1f} %" for share in found.values()]])
    print(f"\n{at}")
    table(
        "Goodput, simulated: each node is interrupted as often as the first column says",
        ["a node's interruptions", "nodes", *goodputs(at, 3600.0)],
        rows,
    )


def fed(at: Figures, block: Sequence[Blocking], runs: dict[str, Found]) -> Figures:
    """The figures of the largest state and of the slower store."""
    if alone := [one for one in block if one.ranks == 1]:
        largest = max(alone, key=lambda one: one.state_bytes)
        at = replace(
            at,
            blocking=statistics.median(largest.ours),
            save=statistics.median(largest.theirs),
            upload=statistics.median(largest.written) + largest.state_bytes / UPLOAD_BYTES_PER_SECOND,
        )
    if runs:
        at = replace(
            at, start=max(statistics.median([start["in all"] for start in one.starts]) for one in runs.values())
        )
        small = max(statistics.median(one.leave) for one in runs.values())
        at = replace(at, leave=small + at.upload)  # the run's state is small, the simulation's is not
    return at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    parts = [chosen.only] if chosen.only else list(PARTS)
    repeats = 1 if chosen.quick else chosen.repeats
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}, {versions}")
    block = blocking(repeats, chosen.quick) if "blocking" in parts else []
    runs = real_runs(max(1, repeats // 2)) if "interrupted" in parts else {}
    if "goodput" in parts:
        simulated(fed(Figures(), block, runs))


if __name__ == "__main__":
    main()
