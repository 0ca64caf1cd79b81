"""Where every thread of every rank is: by their own account where they can still say, else by the kernel's."""

import contextlib
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from job.rundir import STACKS_SIGNAL, RunDir

ANSWER_SECONDS = 3.0
PAUSE_SECONDS = 0.05
PROC = Path("/proc")


def stacks(run: RunDir, ranks: Mapping[int, int]) -> str:
    """A text for people; `ranks` maps ranks to process ids. Takes little more than `ANSWER_SECONDS`."""
    for pid in ranks.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS_SIGNAL)
    sizes: list[int] = []
    until = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < until:
        time.sleep(PAUSE_SECONDS)
        before, sizes = sizes, [len(_read(run.stacks(rank))) for rank in ranks]
        if all(sizes) and sizes == before:  # all have answered, and none is still writing
            break
    return "\n".join(
        f"rank {rank} (pid {pid}, {_state(pid)}):\n{_read(run.stacks(rank)) or '  it does not answer'}"
        for rank, pid in ranks.items()
    )


def _state(pid: int) -> str:
    """Running, sleeping, stopped, waiting for a disk; and where in the kernel: proc(5)."""
    found = re.search(r"^State:\s+\S+ \((.*)\)", _read(PROC / str(pid) / "status"), re.MULTILINE)
    place = _read(PROC / str(pid) / "wchan").strip("0")
    return f"{found[1] if found else 'gone'}{f' in {place}' if place else ''}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
