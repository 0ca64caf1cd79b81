"""Weights & Biases at arm's length: a process of its own that is fed through a queue, and ended when it takes too long.

The W&B client starts a service, registers exit hooks, sets environment variables and may wait for a network for
minutes. None of that may reach the supervisor or its ranks, so only `wandb_feed` imports it.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.report.samples import COLUMNS, Row
from job.report.trackers import DONE_SECONDS, LEAVE_SECONDS

_HELD_BACK = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_WAITING_ROWS = 10_000


class Wandb:
    """A tracker whose calls only put a line into a queue.

    `ids` as in `trackers.tracker_ids`; `folder` takes W&B's files; `say` gets one line, from a thread of its own.
    """

    name = "wandb"

    def __init__(
        self, ids: Mapping[str, str], name: str, config: Mapping[str, Any], folder: Path, say: Callable[[str], None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._say = say
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING_ROWS)
        self._failure: str | None = None
        self._finishing = False
        environment = {
            "WANDB_CACHE_DIR": str(folder / "cache"),
            "WANDB_DATA_DIR": str(folder / "data"),
            **os.environ,
        }
        # A blocked mask is inherited: a scheduler that signals every process of the job does not end the feed with it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        try:
            with (folder / "wandb.log").open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "job.report.wandb_feed"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                    start_new_session=True,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write, self._listen)]
        for thread in self._threads:
            thread.start()
        self._put(kind="start", id=ids["id"], project=ids["project"], name=name, config=config, folder=str(folder))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._put(kind="log", step=step, values=values)

    def samples(self, step: int, rows: list[Row]) -> None:
        table = [[row[column] for column in COLUMNS] for row in rows]
        self._put(kind="samples", step=step, columns=COLUMNS, rows=table)

    def restarted(self, step: int) -> None:
        """W&B keeps what it was told first; a replayed step has the same figures."""

    def close(self, outcome: str) -> None:
        """Finish the run within a bound, then leave no process behind."""
        self._finishing = True
        with contextlib.suppress(RuntimeError):
            self._put(kind="finish", outcome=outcome)
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        try:
            self._process.wait(DONE_SECONDS if outcome == "done" else LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            self._say("wandb: not everything was sent in time")
        self._kill()
        for thread in self._threads:
            thread.join(1.0)

    def _put(self, **message: Any) -> None:
        if self._failure is not None:
            raise RuntimeError(self._failure)
        with contextlib.suppress(queue.Full):  # W&B hangs: its rows are lost, training is not
            self._lines.put_nowait(json.dumps(message) + "\n")

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdin as pipe:
            while (line := self._lines.get()) is not None:
                pipe.write(line)
                pipe.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        failure = "its process ended"
        for line in self._process.stdout:
            answer = json.loads(line)
            failure = answer.get("error", failure)
            if "message" in answer or self._finishing:
                self._say(f"wandb: {answer.get('message', failure)}")
        self._failure = failure

    def _kill(self) -> None:
        """End the feed, and the service that it started in a session of its own."""
        if self._process.poll() is not None:
            return
        for pid in [*_children(self._process.pid), self._process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _children(pid: int) -> list[int]:
    """Process ids below `pid`; none where the system does not tell (the service then notices by itself)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
