"""Starts one of the drill's programs and sees it to its end; nothing of it is left then, or it is said what was."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.drill.striker import Notes
from job.errors import RankCrashed, Stopped
from job.host.preemption import Stop

LIMIT_SECONDS = 600.0  # a tiny job that takes longer hangs
LEAVE_SECONDS = 10.0  # a killed process may still be ending
POLL_SECONDS = 0.02
TAIL_LINES = 25
MARK = "SFT_JOB_DRILL"
PROC = Path("/proc")


@dataclass(frozen=True)
class Started:
    """How a start went."""

    code: int  # negative: ended by that signal
    began: float  # on the machine's monotonic clock, as the notes' times
    seconds: float
    notes: list[dict[str, Any]]
    left: list[str]  # command lines of processes that outlived it
    said: list[str]  # its last lines

    @property
    def cause(self) -> str:
        """Its last line, as it was meant for people."""
        return self.said[-1].removeprefix("sft-job: ") if self.said else "it said nothing"


def start(words: Sequence[object], home: Path, stop: Stop, notes: Path | None = None) -> Started:
    """Run `python -m WORDS` to its end. The calling thread has to live as long: with it the program would end.

    Raises: Stopped when a stop is asked for, RankCrashed when it hangs; nothing is left running then.
    """
    home.mkdir(parents=True, exist_ok=True)
    mark, log, began = secrets.token_hex(8), home / f"{secrets.token_hex(4)}.log", time.monotonic()
    environment = {
        **os.environ,
        "SFT_JOB_HOME": str(home),
        "SFT_JOB_PARENT_PID": str(os.getpid()),
        "OMP_NUM_THREADS": "1",  # so small a model leaves a second thread to spin
        MARK: mark,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a signal to our group is ours alone
        )
    try:
        while process.poll() is None:
            if stop.requested():
                raise Stopped(f"stopped by {stop.reason}; the drill's runs are gone, begin it anew")
            if time.monotonic() - began > LIMIT_SECONDS:
                raise RankCrashed(f"{' '.join(map(str, words))} did not end within {LIMIT_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)
        seconds, left = time.monotonic() - began, outliving(mark)
    finally:
        process.kill()
        process.wait()
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        outliving(mark)
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return Started(process.returncode, began, seconds, Notes.read(notes) if notes else [], left, said)


def outliving(mark: str) -> list[str]:
    """What is still there a moment later."""
    until = time.monotonic() + LEAVE_SECONDS
    while (found := marked(mark)) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
    return list(found.values())


def marked(mark: str) -> dict[int, str]:
    """Living processes that carry the mark in their environment, by process id."""
    found, ours = {}, f"{MARK}={mark}".encode()
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if ours in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if command:  # the dead have none
                    found[int(entry.name)] = command
    return found
