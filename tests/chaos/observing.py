"""What a process does is seen from outside its code, and at one chosen moment a signal is sent.

A supervisor is seen by the operations on its store, a rank by the events it writes, both by the interpreter's own audit
events of files and folders. Each is one line of text, `before upload checkpoints/...` or `event step 4`.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SUPERVISOR = "supervisor"
STOPPING_SECONDS = 0.5  # until a stop has reached every thread: the one that sent it must get no further
AUDITED = {
    "open": "open",
    "os.mkdir": "mkdir",
    "os.rename": "rename",
    "os.link": "link",
    "os.symlink": "symlink",
    "os.remove": "remove",
    "os.rmdir": "rmdir",
}


@dataclass(frozen=True)
class Deed:
    """At the `nth` line of `process` that matches `pattern`, and `delay_seconds` later, `target` gets the signal.

    `process` is supervisor, prepare, or rank-N; so is `target`. Lines count once one has matched `after`. Done once,
    however often the process is started.
    """

    process: str
    pattern: str
    signal: str = "SIGKILL"
    target: str = SUPERVISOR
    nth: int = 1
    after: str = ""
    delay_seconds: float = 0.0

    def __str__(self) -> str:
        late = f" + {self.delay_seconds * 1000:.0f} ms" if self.delay_seconds else ""
        place = f"{self.pattern}, no. {self.nth}" + (f" after {self.after}" if self.after else "") + late
        return f"{self.signal} to {self.target} at {self.process}: {place}"


@dataclass(frozen=True)
class Plan:
    """What is special about one start of a supervisor. `folder` takes what was seen; paths are told below `root`."""

    root: str
    folder: str
    deed: Deed | None = None
    clock_seconds: float = 0.0  # by which the wall clock is off ...
    clock_from: str = ""  # ... from this line on
    flip: str = ""  # downloads from the run folder whose key matches arrive with a flipped bit
    flip_unnoticed: bool = False  # ... before anybody checks what comes; else once it is on this machine's disk
    record: bool = False  # all lines, in lines-PROCESS

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def load(fields: Mapping[str, Any]) -> "Plan":
        deed = fields["deed"]
        return Plan(**{**fields, "deed": Deed(**deed) if deed else None})


@dataclass
class Observer:
    """Sees one process. `pids` finds a target's process id by its name."""

    plan: Plan
    process: str
    pids: Callable[[str], int | None]
    _count: int = 0
    _counts: bool = False  # `after` was seen
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _busy: threading.local = field(default_factory=threading.local)

    def watch(self) -> None:
        """See audit events from now on; an interpreter forgets no hook, so this is for forked children."""
        sys.addaudithook(self._audited)

    def _audited(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in AUDITED or getattr(self._busy, "now", False):
            return
        path = next((str(at) for at in arguments[:2] if isinstance(at, str | Path) and self._below(str(at))), None)
        if path is not None:
            self.saw(f"{AUDITED[event]} {path.removeprefix(self.plan.root + '/')}")

    def _below(self, path: str) -> bool:
        return path.startswith(self.plan.root + "/") and not path.startswith(self.plan.folder)

    def saw(self, line: str) -> None:
        self._busy.now = True
        try:
            with self._lock:
                if self.plan.record:
                    self._append(f"lines-{self.process}", line)
                self._move_clock(line)
                deed = self.plan.deed
                if deed is None or deed.process != self.process or not self._matches(deed, line):
                    return
                self._count += 1
                due = self._count == deed.nth
            if due:
                self._do(deed, line)
        finally:
            self._busy.now = False

    def _matches(self, deed: Deed, line: str) -> bool:
        counted, self._counts = self._counts, self._counts or bool(re.search(deed.after, line))
        return (counted or not deed.after) and bool(re.search(deed.pattern, line))

    def _do(self, deed: Deed, line: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(f"{self.plan.folder}/done", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            self._append("done", f"{self.process}: {line}")
            if deed.delay_seconds:
                threading.Thread(target=self._later, args=(deed,), daemon=True).start()
            else:
                self._send(deed)

    def _later(self, deed: Deed) -> None:
        time.sleep(deed.delay_seconds)
        self._send(deed)

    def _send(self, deed: Deed) -> None:
        if (pid := self.pids(deed.target)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.Signals[deed.signal])
                if deed.signal == "SIGSTOP":
                    time.sleep(STOPPING_SECONDS)

    def _move_clock(self, line: str) -> None:
        plan = self.plan
        if plan.clock_seconds and re.search(plan.clock_from, line) and time.time is REAL_TIME:
            time.time = lambda: REAL_TIME() + plan.clock_seconds

    def tell(self, **fields: Any) -> None:
        """Into the ledger: what the judge wants to know of ranks, whatever becomes of them."""
        self._append("ledger", json.dumps(fields))

    def tell_modules(self) -> None:
        """What is imported by now, where all is recorded."""
        if self.plan.record:
            self._append(f"modules-{self.process}", "\n".join(sys.modules))

    def _append(self, name: str, line: str) -> None:
        descriptor = os.open(f"{self.plan.folder}/{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        try:
            os.write(descriptor, f"{line}\n".encode())  # one write: lines of several processes never mix
        finally:
            os.close(descriptor)


REAL_TIME = time.time
