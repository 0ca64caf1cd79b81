"""How many cores this process may use: those it is bound to, and no more than its control groups let it have."""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1. `root`: where proc and sys lie. A quota of 1.5 cores counts as 2."""
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min((bound, *_quotas(root)))))


def _quotas(root: Path) -> Iterator[float]:
    """In cores, of each control group this process is in, directly or above it; nothing where there is no limit."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        path = PurePosixPath(place.lstrip("/"))
        for group in (path, *path.parents):
            folder = base / group
            if controllers:
                numbers = [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
            else:
                numbers = _text(folder / "cpu.max").split()
            if len(numbers) == 2 and all(number.strip().isdigit() for number in numbers) and int(numbers[1]):
                yield int(numbers[0]) / int(numbers[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
