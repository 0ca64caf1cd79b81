"""What ended ranks leave behind is ended and waited for too: as subreaper, this process inherits it."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from job.rundir import RunDir

REAP_SECONDS = 10.0  # a process that hangs in the kernel outlives every KILL: it must not keep this one
REAP_PAUSE_SECONDS = 0.01
PROC = Path("/proc")
PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>


def become_subreaper() -> None:
    """Orphaned descendants become our children, so that they can be ended and waited for."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_descendants(run: RunDir) -> None:
    """KILL and reap whatever the ended ranks left behind (data-loader workers, compilers). As subreaper this process
    inherits them; they are known by the run folder in their environment: a tracker's service is not theirs to end."""
    mark = f"SFT_JOB_RUN_DIR={run.path}".encode()
    until, ended = time.monotonic() + REAP_SECONDS, set[int]()
    while time.monotonic() < until:
        left = {pid for pid in _other_processes() if mark in _environment(pid)}
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended = {pid for pid in ended | left if not _reaped(pid)}
        if not left and not ended:
            return
        time.sleep(REAP_PAUSE_SECONDS)


def _reaped(pid: int) -> bool:
    """A dead one whose own parent is dying too is still to be handed over to us."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not (PROC / str(pid)).exists()


def _other_processes() -> list[int]:
    numbers = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.is_dir() else []
    return [pid for pid in numbers if pid != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    """Empty for a process of somebody else's, and for a dead one."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
