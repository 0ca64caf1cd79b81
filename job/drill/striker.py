"""One blow at one moment; what was done and what stood at that moment is noted before it falls."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.drill.plan import Blow, Case, Phase


class Notes:
    """What a start saw, a JSON line each, with the time on the machine's monotonic clock. A KILL leaves them whole."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, kind: str, **fields: Any) -> None:
        os.write(self._file, (json.dumps({"kind": kind, "at": time.monotonic(), **fields}) + "\n").encode())

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@dataclass
class Standing:
    """Where the run stands, as far as was seen."""

    step: int = 0  # done
    commit: int = 0  # step of the newest acknowledged one
    rank: int | None = None  # process id
    snapshot: Callable[[], int] = lambda: 0  # step of the newest one that lies whole on the disk


def there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class Striker:
    """Strikes once. `reached` may be called from any thread."""

    def __init__(self, case: Case | None, notes: Notes, standing: Standing) -> None:
        self.case, self._notes, self._standing = case, notes, standing
        self._turn, self._over = threading.Lock(), threading.Event()

    def waits_for(self, *phases: Phase) -> bool:
        return self.case is not None and self.case.phase in phases and not self._over.is_set()

    def wait(self, seconds: float) -> bool:
        """Whether it has struck."""
        return self._over.wait(seconds)

    def reached(self, phase: Phase) -> None:
        """The run is in this phase, now."""
        with self._turn:
            if self.case is None or not self.waits_for(phase):
                return
            target = self._standing.rank if self.case.blow == Blow.KILL_RANK else os.getpid()
            if target is None or not there(target):
                return
            standing = self._standing
            self._notes.write("hit", step=standing.step, commit=standing.commit, snapshot=standing.snapshot())
            os.kill(target, self.case.blow.signal)
            self._over.set()
