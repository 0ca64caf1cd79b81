"""Whole runs from one warm interpreter: what `python -m job run` does, at a tenth of its cost."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.environ import with_room
from tests.chaos.nursery import MESSAGE_BYTES
from tests.chaos.observing import Plan
from tests.harness import PATIENCE_SECONDS, ROOT, environment

QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


class Warm:
    """The warm interpreter, and who of its children has ended."""

    def __init__(self, log: Path) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("wb") as out, theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.zygote", str(theirs.fileno())],
                cwd=ROOT,
                env=with_room({**environment(log.parent), **QUIET}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        self._log = log
        self._answers: list[dict[str, int]] = []
        self._codes: dict[int, int] = {}
        self._changed = threading.Condition()
        self._asking = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()
        self._answer()

    def close(self) -> None:
        self._line.shutdown(socket.SHUT_RDWR)
        self._process.wait(30)

    def import_all(self, names: Sequence[str]) -> None:
        with self._asking:
            for at in range(0, len(names), 200):
                self._line.send(json.dumps({"import": list(names[at : at + 200])}).encode())
                self._answer()

    def start(self, arguments: Sequence[str], home: Path, extra: Mapping[str, str], plan: Plan) -> "WarmJob":
        home.mkdir(parents=True, exist_ok=True)
        stamp = time.monotonic_ns()
        mark = f"{os.getpid()}-{stamp}"
        log, out = home / f"job-{stamp}.log", home / f"out-{stamp}"
        request = {
            "arguments": list(arguments),
            "environment": {**environment(home, {**QUIET, **extra}), "SFT_TEST": mark},
            "folder": str(ROOT),
            "log": str(log),
            "stdout": str(out),
            "plan": plan.dump(),
        }
        with self._asking:
            self._line.send(json.dumps(request).encode())
            return WarmJob(self, self._answer()["started"], f"SFT_TEST={mark}", log)

    def wait(self, pid: int, seconds: float) -> int:
        with self._changed:
            if not self._changed.wait_for(lambda: pid in self._codes, seconds):
                raise TimeoutError(f"process {pid} did not end within {seconds:.0f} s")
            return self._codes[pid]

    def code(self, pid: int) -> int | None:
        with self._changed:
            return self._codes.get(pid)

    def _answer(self) -> dict[str, int]:
        with self._changed:
            came = self._changed.wait_for(lambda: bool(self._answers), 120)
            assert came and self._answers[0] is not None, self._log.read_text(encoding="utf-8")
            return self._answers.pop(0)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while message := self._line.recv(MESSAGE_BYTES):
                told = json.loads(message)
                with self._changed:
                    if "ended" in told:
                        self._codes[told["ended"]] = told["code"]
                    else:
                        self._answers.append(told)
                    self._changed.notify_all()


@dataclass
class WarmJob:
    """One supervisor; like `tests.harness.Job`."""

    warm: Warm
    pid: int
    mark: str
    log: Path
    _left: dict[int, str] = field(default_factory=dict)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def over(self) -> bool:
        return self.warm.code(self.pid) is not None

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code. Nothing it started may be left a moment later."""
        try:
            code = self.warm.wait(self.pid, seconds)
        except TimeoutError:
            self.end()
            raise AssertionError(f"no end within {seconds:.0f} s:\n{self.said()}") from None
        deadline = time.monotonic() + 10
        while (left := processes(self.mark)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not left, f"still there after the end: {left}"
        return code

    def end(self) -> None:
        for pid in processes(self.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes(mark: str) -> list[int]:
    """Every living process with that line in its environment."""
    return [pid for pid in _numbers() if mark.encode() in _environment(pid)]


def _numbers() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _environment(pid: int) -> list[bytes]:
    """Empty for who is dead."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
