"""The two programs that load what a run committed: one opens tensors, the other is `ask`, asked nothing."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from job.config import RunConfig
from job.errors import DataError, ExitCode, RankCrashed, Stopped
from job.host.launcher import STOP_SIGNALS, inherited
from job.host.preemption import Stop
from job.report.progress import Display, bytes_figures
from job.rundir import write_atomically
from job.storage.cache import Cache
from job.storage.pull import Pull, pull_weights
from job.storage.records import Commit, Result, RunRecord
from job.storage.stock import Stock
from job.storage.store import ObjectStore
from job.storage.verification import Files

POLL_SECONDS = 0.1


class Loader:
    """`load` is what a Verification takes. The program that has torch starts with the first use, and ends with this."""

    def __init__(self, scratch: Path, stock: Stock, store: ObjectStore, stop: Stop, display: Display) -> None:
        self._scratch, self._stock, self._store, self._stop, self._display = scratch, stock, store, stop, display
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            _end(self._process)

    def load(self, record: object, files: Files) -> list[str]:
        """What is wrong with the content. Raises: RankCrashed, Stopped, StorageError (of the base's store)."""
        named = {name: str(path) for name, path in files.items()}
        if isinstance(record, Commit):
            cleared = record.origin is not None and not record.evaluations  # a fork's, under another evaluation
            evaluations = None if cleared else record.evaluations
            return self._asked({"files": named, "step": record.step, "evaluations": evaluations})
        assert isinstance(record, Result)
        return self._asked({"files": named}) or self._as_model(record, files)

    def _asked(self, request: dict[str, object]) -> list[str]:
        if self._process is None:
            self._process = _started(["job.loads"], subprocess.PIPE, subprocess.PIPE, None)
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        while not select.select([self._process.stdout], [], [], POLL_SECONDS)[0]:
            self._heed()
        line = self._process.stdout.readline()
        if not line:
            raise RankCrashed("the loading program ended without an answer; is there memory for the tensors?")
        problems: list[str] = json.loads(line)["problems"]
        return problems

    def _heed(self) -> None:
        if self._stop.requested():
            raise Stopped(f"stopped by {self._stop.reason} while verifying; nothing was changed")

    def _as_model(self, result: Result, files: Files) -> list[str]:
        """The result as `ask` loads it; only its recorded files are in reach."""
        run = self._stock.run
        if not isinstance(run, RunRecord):
            return []  # there is no config to load it by, and that is said elsewhere
        config = RunConfig.from_dict(run.config)
        final = self._scratch / "final"
        for name, path in files.items():
            link = final / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        base = final
        if result.kind != "full":
            try:
                base = self._base(run, config)
            except DataError as error:
                return [f"its base cannot be pulled: {error}"]
        request: dict[str, object] = {
            "base": str(base),
            "adapter": None if base == final else str(final),
            "tokenizer": str(final),
            "prompts": [],
            "chat": result.chat,
            "precision": "fp32" if config.model.precision == "fp32" else "auto",
            "trust_remote_code": config.model.trust_remote_code,
        }
        file = self._scratch / "request.json"
        write_atomically(file, json.dumps(request))
        return self._run_ask(file)

    def _base(self, run: RunRecord, config: RunConfig) -> Path:
        began = time.monotonic()

        def progress(description: str, done: int, total: int) -> None:
            self._display.work(description, done, total, bytes_figures(done, total, time.monotonic() - began))

        with contextlib.closing(Cache()) as cache:
            pull = Pull(cache, config.storage, progress, stopped=self._stop.requested, notice=self._display.say)
            return pull_weights(run.base_source, self._scratch / "base", pull, config.model.trust_remote_code).path

    def _run_ask(self, request: Path) -> list[str]:
        said = self._scratch / "ask.log"
        with said.open("w", encoding="utf-8") as log:
            process = _started(["job.ask", str(request)], subprocess.DEVNULL, log, log)
            try:
                while process.poll() is None:
                    self._heed()
                    time.sleep(POLL_SECONDS)
            finally:
                _end(process)
        if process.returncode == ExitCode.DONE:
            return []
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if process.returncode == ExitCode.DATA and lines:
            return [lines[-1].removeprefix("DataError: ")]
        last = lines[-1] if lines else "no word"
        raise RankCrashed(f"the program that loads the result left with {process.returncode}: {last}")


def _started(
    arguments: list[str], stdin: int, stdout: int | IO[str], stderr: IO[str] | None
) -> "subprocess.Popen[str]":
    """A program of ours that ends with this process and never sees a signal: this side ends it."""
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "SFT_JOB_PARENT_PID": str(os.getpid())}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env={**inherited(), **offline},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            encoding="utf-8",
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
