"""Real runs as a user starts them: `python -m job` in a process of its own, watched, signalled, and counted out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120.0


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our own process's, with a home of the test's and nothing of a scheduler's or a tracker's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "WANDB_", "SFT_JOB_"))}
    path = os.pathsep.join(part for part in (str(ROOT), kept.get("PYTHONPATH")) if part)
    return {**kept, "PYTHONPATH": path, "SFT_JOB_HOME": str(home), "OMP_NUM_THREADS": "1", **(extra or {})}


@dataclass
class Job:
    """One `sft-job` process; its stderr goes to a file, so that a KILL leaves what it said."""

    arguments: Sequence[str]
    home: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self._mark = f"SFT_TEST={os.getpid()}-{id(self)}-{time.monotonic_ns()}"
        name, _, value = self._mark.partition("=")
        self.log = self.home / f"job-{time.monotonic_ns()}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "job", *self.arguments],
                env={**environment(self.home, self.extra), name: value},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Until stderr holds `pattern`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := re.search(pattern, self.said()):
                return found
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode} before {pattern!r}:\n{self.said()}"
            )
            time.sleep(0.02)
        raise AssertionError(f"no {pattern!r} within {seconds} s:\n{self.said()}")

    def wait_for_step(self, step: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Until a step of at least `step` was logged."""
        deadline = time.monotonic() + seconds
        while max((int(n) for n in re.findall(r"step (\d+)/\d+  loss", self.said())), default=0) < step:
            assert time.monotonic() < deadline, f"step {step} not reached:\n{self.said()}"
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode} before step {step}:\n{self.said()}"
            )
            time.sleep(0.02)

    def wait_for_commit(self, step: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Until a commit of at least `step` was logged: on a busy machine the newest snapshot overtakes older ones."""
        deadline = time.monotonic() + seconds
        while max((int(n) for n in re.findall(r"step (\d+)/\d+  committed", self.said())), default=0) < step:
            assert time.monotonic() < deadline, f"step {step} not committed:\n{self.said()}"
            assert self.process.poll() is None, f"ended with {self.process.returncode} before that:\n{self.said()}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit code. Nothing it started may be left a moment later."""
        code = self.process.wait(seconds)
        deadline = time.monotonic() + 10
        while (left := self.descendants()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"still there after the end: {left}"
        return code

    def stdout(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def descendants(self) -> dict[int, str]:
        """Every living process that carries this job's mark in its environment, but the job itself."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                if self._mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    if command:  # a zombie has none
                        found[int(entry.name)] = command
            except OSError:
                continue
        return found

    def ranks(self) -> list[int]:
        return sorted(pid for pid, command in self.descendants().items() if "-m job.train " in command)


def finish(arguments: Sequence[str], home: Path, extra: Mapping[str, str] | None = None, code: int = 0) -> Job:
    """Run to the end and expect `code`."""
    job = Job(arguments, home, extra or {})
    assert job.ended() == code, job.said()
    return job


def sets(values: Mapping[str, Any]) -> list[str]:
    return [part for path, value in values.items() for part in ("--set", f"{path}={json.dumps(value)}")]
