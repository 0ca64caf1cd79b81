"""A child process of the supervisor: dies with it, shows its stacks when asked, leaves the cause of its own end."""

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable

from job.cores import cores_of
from job.errors import ExitCode, JobError, no_space
from job.rundir import STACKS_SIGNAL, RunDir

PARENT_VARIABLE = "SFT_JOB_PARENT_PID"
CPUS_VARIABLE = "SFT_JOB_CPUS"
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def bind_to_parent() -> None:
    """Have the kernel KILL this process when its supervisor dies; leave at once if that happened already."""
    expected = os.environ.get(PARENT_VARIABLE)
    die_with(int(expected) if expected is not None else os.getppid())
    keep_to_cores()


def keep_to_cores() -> None:
    """Those near its GPU, where the supervisor names them: before any thread is there, as threads inherit them."""
    if cores := os.environ.get(CPUS_VARIABLE):
        with contextlib.suppress(OSError):  # taken offline, or from this job, since they were named
            os.sched_setaffinity(0, cores_of(cores))


def die_with(parent: int) -> None:
    """Have the kernel KILL this process when `parent` dies, who started it; leave at once if that happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ExitCode.CRASHED)


def show_stacks_when_asked(run: RunDir, rank: int) -> None:
    """From C, in the signal handler itself: it works while the interpreter waits inside a library."""
    faulthandler.register(STACKS_SIGNAL, run.stacks(rank).open("w", encoding="utf-8"), all_threads=True)


def leave(run: RunDir, rank: int, story: Callable[[], None]) -> int:
    """Run `story`; returns its exit code and writes the cause of a failure where the supervisor looks for it."""
    try:
        story()
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return _left(run, rank, error.exit_code, str(error))
    except BaseException as error:
        if full := no_space(error, run.path):
            return _left(run, rank, full.exit_code, str(full))
        traceback.print_exc()
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return _left(run, rank, ExitCode.CRASHED, f"{type(error).__name__}: {first_line}")
    return int(ExitCode.DONE)


def _left(run: RunDir, rank: int, code: ExitCode, message: str) -> int:
    try:
        run.write_error(rank, code, message)
    except (OSError, JobError) as error:  # where the disk is full, the code has to do
        print(f"the cause could not be written to {run.error(rank)}: {error}", file=sys.stderr, flush=True)
    return int(code)
