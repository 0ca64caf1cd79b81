"""A supervisor that is stopped with all it started, as a machine that hangs or a daemon that lost its job leaves it."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.experiment import Laboratory
from tests.chaos.observing import Deed
from tests.chaos.warm import WarmJob, processes
from tests.harness import PATIENCE_SECONDS


@dataclass
class Zombie:
    job: WarmJob
    done: Path

    def wait_until_done(self) -> None:
        """Until its deed was done: one of its processes stands still."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.done.exists() and any(stands_still(pid) for pid in processes(self.job.mark))):
            assert time.monotonic() < deadline and not self.job.over(), self.job.said()
            time.sleep(0.01)

    def stop(self) -> None:
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        for pid in processes(self.job.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def stands_still(pid: int) -> bool:
    """Whether a stop has reached every thread of the process."""
    try:
        threads = [each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return False  # it, or a thread of it, just ended
    return bool(threads) and all(state == "T" for state in threads)


def start_with(laboratory: Laboratory, name: str, fields: Mapping[str, Any], deed: Deed, home: str = "home") -> Zombie:
    """Starts a run and returns once the deed is done."""
    job = laboratory.start(name, fields, home, deed=deed)
    started = Zombie(job, laboratory.folder / name / "seen" / home / "done")
    started.wait_until_done()
    return started
