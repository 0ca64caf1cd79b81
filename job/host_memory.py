"""How much memory this process may still take: the machine's, or less where a control group sets a limit."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Of a control group: its limit, its use, and the part of its use that is page cache the kernel gives up first.
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def available_bytes(root: Path = Path("/")) -> int:
    """The least of what the machine and every control group around this process have left. 0 where nobody knows."""
    return min([*_machine(root), *_groups(root)], default=0)


def _machine(root: Path) -> Iterator[int]:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _groups(root: Path) -> Iterator[int]:
    """A container may see its own group at the root, or its path on the host, which is not there: look at all."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount, files = (
            (root / "sys/fs/cgroup/memory", VERSION_1) if controllers else (root / "sys/fs/cgroup", VERSION_2)
        )
        path = PurePosixPath(place.lstrip("/"))
        for group in (path, *path.parents):
            yield from _group(mount / group, *files)


def _group(folder: Path, limit_file: str, use_file: str, cache_name: str) -> Iterator[int]:
    limit, use = _text(folder / limit_file).strip(), _text(folder / use_file).strip()
    if not limit.isdigit() or not use.isdigit():  # "max", or no such file
        return
    cache = [int(line.split()[1]) for line in _text(folder / "memory.stat").splitlines() if line.startswith(cache_name)]
    yield max(0, int(limit) - int(use) + sum(cache))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
