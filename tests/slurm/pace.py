"""How fast a run goes: a module of hooks makes the later steps of a job's first life take as long as a file says."""

from pathlib import Path

FROM_STEP = 60  # by then there is a commit
HOOKS = f"""
import os, time
from pathlib import Path
from transformers import TrainerCallback


class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        pace = Path(os.environ.get("SFT_TEST_PACE", "none") + os.environ.get("SLURM_ARRAY_TASK_ID", ""))
        if state.global_step < {FROM_STEP} or "SLURM_RESTART_COUNT" in os.environ or not pace.exists():
            return
        end = time.monotonic() + float(pace.read_text())
        while pace.exists() and time.monotonic() < end:
            time.sleep(0.02)


def callbacks(config):
    return [Slow()]
"""


class Pace:
    """`name`: SFT_TEST_PACE; the number of an array's task may follow."""

    def __init__(self, name: Path, seconds_per_step: float, task: str = "") -> None:
        self._file = Path(f"{name}{task}")
        self._file.write_text(str(seconds_per_step), encoding="utf-8")

    def as_fast_as_it_can(self) -> None:
        self._file.unlink()
