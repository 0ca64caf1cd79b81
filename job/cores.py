"""Cores: how many this process may use, by its binding and its control groups, and how sets of them are written."""

import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1. `root`: where proc and sys lie. A quota of 1.5 cores counts as 2."""
    bound = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, math.ceil(min((bound, *_quotas(root)))))


def cores_of(ranges: str) -> set[int]:
    """The kernel's way of writing cores: `0-3,8` (Documentation/admin-guide/cputopology.rst)."""
    cores: set[int] = set()
    for one in filter(None, ranges.strip().split(",")):
        first, _, last = one.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def written(cores: Iterable[int]) -> str:
    """As `cores_of` reads it."""
    spans: list[list[int]] = []
    for core in sorted(cores):
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


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
