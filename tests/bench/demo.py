"""What the demo costs from the command to the answer: CPU seconds of its whole process tree, and wall time.

Run as `python -m tests.bench.demo [RUNS]`.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.harness import environment


def measured(folder: Path) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one demo in a new folder."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "job", "demo", str(folder / "demo")],
        env=environment(folder / "home"), check=True, capture_output=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.monotonic() - began


def main(runs: int = 3) -> None:
    figures = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            figures.append(measured(Path(folder)))
    table = Table("demo", "CPU s", "wall s")
    for number, (cpu, wall) in enumerate(figures, 1):
        table.add_row(str(number), f"{cpu:.1f}", f"{wall:.1f}")
    cpus, walls = zip(*figures, strict=True)
    table.add_row("median", f"{statistics.median(cpus):.1f}", f"{statistics.median(walls):.1f}", style="bold")
    Console().print(table)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
