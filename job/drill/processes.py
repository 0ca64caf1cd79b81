"""Processes of this machine, by what the kernel says of them: our children, and one that stands still for a moment."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

STOP_SECONDS = 5.0
POLL_SECONDS = 0.0001
PROC = Path("/proc")


@contextlib.contextmanager
def held(pid: int | None) -> Iterator[bool]:
    """The process stands still while the block runs; False where there is none, or it cannot be stopped."""
    try:
        yield pid is not None and _told(pid, signal.SIGSTOP) and _stands_still(pid)
    finally:
        if pid is not None:
            _told(pid, signal.SIGCONT)


def _told(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _stands_still(pid: int) -> bool:
    """All threads of it: one in a system call stops when that returns."""
    until = time.monotonic() + STOP_SECONDS
    while time.monotonic() < until:
        states = [_fields(task / "stat")[:1] for task in entries(PROC / str(pid) / "task")]
        if not states or ["Z"] in states:
            return False
        if all(state in (["T"], []) for state in states):
            return True
        time.sleep(POLL_SECONDS)
    return False


def child_running(module: str) -> int | None:
    """The process id of a child of ours that runs this program."""
    for entry in entries(PROC):
        if not entry.name.isdigit() or _fields(entry / "stat")[1:2] != [str(os.getpid())]:
            continue
        with contextlib.suppress(OSError):
            if module.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                return int(entry.name)
    return None


def entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _fields(stat: Path) -> list[str]:
    """From the state on, proc(5)."""
    try:
        return stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
