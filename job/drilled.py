"""One start of a drilled job: the story of a node as it is, told on a store that sees where it is, and struck once.

Started by the drill as `python -m job.drilled RUN.yaml NOTES [PHASE:SIGNAL]`; without the last it is only watched.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from job.config import RunConfig, load_config
from job.drill.plan import chosen
from job.drill.striker import Notes, Standing, Striker
from job.drill.struck_store import StruckStore
from job.drill.watch import Watch
from job.errors import ExitCode, JobError
from job.host.preemption import hold_stop_signals
from job.report.progress import stderr_console
from job.run import run, run_store
from job.storage.store import ObjectStore

PARENT_VARIABLE = "SFT_JOB_PARENT_PID"
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def die_with_the_drill() -> None:
    """The kernel kills this process when the thread that started it ends; it may have ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(PARENT_VARIABLE) not in (None, str(os.getppid())):
        os._exit(ExitCode.CRASHED)


def main(arguments: Sequence[str]) -> int:
    die_with_the_drill()
    hold_stop_signals()
    notes, standing = Notes(Path(arguments[1])), Standing()
    striker = Striker(chosen(False, [arguments[2]])[0] if len(arguments) > 2 else None, notes, standing)

    def opener(config: RunConfig, stopped: Callable[[], bool]) -> ObjectStore:
        return StruckStore(run_store(config, stopped), striker, standing)

    try:
        with Watch(striker, standing, notes):
            run(load_config(Path(arguments[0])), stderr_console(), opener=opener)
    except JobError as error:
        print(f"sft-job: {error}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except Exception as error:
        traceback.print_exc()
        print(f"sft-job: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return int(ExitCode.CRASHED)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
