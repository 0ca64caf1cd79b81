"""A question to a finished run: its result and its base are pulled and verified, then the asking program is started.

Nothing is written into the run folder; the temporary folder is gone afterwards, however it ends.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from job.config import RunConfig, load_config
from job.errors import ConfigError, DataError, ExitCode, RankCrashed, Stopped
from job.host.launcher import STOP_SIGNALS
from job.host.preemption import Stop
from job.report.progress import bytes_figures, display_for, stderr_console
from job.rundir import write_atomically
from job.storage.cache import Cache
from job.storage.pull import Pull, pull_files, pull_weights, sha256
from job.storage.records import RESULT, RUN, Result, RunRecord
from job.storage.store import NO_OPTIONS, NotFound, ObjectStore, open_store
from job.workspace import scratch_folder

ANSWER_WITHIN_SECONDS = 60.0  # somebody waits for it: a store that is away is said to be so soon
POLL_SECONDS = 0.1


def answer(
    run: str,
    prompt: str,
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.0,
    top_p: float = 1.0,
    device: str = "auto",
) -> int:
    """Prints the tuned model's answer on stdout and returns the program's exit code. Call from the main thread.

    `run` is a RUN.yaml or a run folder; `temperature` 0 is greedy; `device` is auto, cpu or cuda.
    Raises DataError for a run without a result or with a damaged one, Stopped on a signal, and what storage raises.
    """
    store = _run_store(run)
    result = _result(store)
    record = RunRecord.parse(_get(store, RUN), f"{store.uri}/{RUN}")
    config = RunConfig.from_dict(record.config)
    with _stop_on_signals() as stop, scratch_folder("ask") as folder, contextlib.closing(Cache()) as cache:
        with _pull_with_progress(cache, config, stop) as pull:
            final = _pull_final(store, result, folder / "final", pull)
            base = None if result.kind == "full" else _pull_base(record, folder / "base", config, pull)
        request = {
            "base": str(base or final),
            "adapter": None if base is None else str(final),
            "tokenizer": str(final),
            "prompts": [prompt],
            "chat": result.chat,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": config.train.seed,
            "device": device,
            # bf16 that suited the training's device need not suit this one
            "precision": "fp32" if config.model.precision == "fp32" else "auto",
            "trust_remote_code": config.model.trust_remote_code,
        }
        write_atomically(folder / "request.json", json.dumps(request))
        return _ask(folder / "request.json", stop)


# ---- the run folder


def _run_store(run: str) -> ObjectStore:
    """The store of a run that is named by its config file or by its folder."""
    if Path(run).suffix in (".yaml", ".yml") and "://" not in run:
        config = load_config(Path(run))
        return open_store(config.run, config.storage, ANSWER_WITHIN_SECONDS)
    if Path(run).is_file():
        raise ConfigError(f"{run} is a file, but neither a RUN.yaml nor a run folder")
    return open_store(run, NO_OPTIONS, ANSWER_WITHIN_SECONDS)


def _result(store: ObjectStore) -> Result:
    try:
        found = store.get(RESULT)
    except NotFound:
        raise DataError(f"{store.uri} has no result yet; run it to the end first") from None
    return Result.parse(found, f"{store.uri}/{RESULT}")


def _get(store: ObjectStore, key: str) -> bytes:
    try:
        return store.get(key)
    except NotFound:
        raise DataError(
            f"{store.uri}/{key} is missing, though the run has a result; the run folder is damaged"
        ) from None


# ---- what the model is made of


@contextlib.contextmanager
def _pull_with_progress(cache: Cache, config: RunConfig, stop: Stop) -> Iterator[Pull]:
    display, began = display_for(stderr_console()), time.monotonic()

    def progress(description: str, done: int, total: int) -> None:
        display.work(description, done, total, bytes_figures(done, total, time.monotonic() - began))

    try:
        yield Pull(cache, config.storage, progress, stopped=stop.requested, notice=display.say)
    finally:
        display.close()


def _pull_final(store: ObjectStore, result: Result, dest: Path, pull: Pull) -> Path:
    """The result's files, read in place where they lie on this machine's file systems."""
    for file in result.files:
        if PurePosixPath(file.name).is_absolute() or ".." in PurePosixPath(file.name).parts:
            raise DataError(f"{store.uri}/{RESULT} names {file.name!r}, which is outside the result's folder")
    names = [file.name for file in result.files]
    final = pull_files(f"{store.uri}/{result.folder}", names, dest, pull, "result").path
    for file in result.files:
        path = final / file.name
        if path.stat().st_size != file.size or sha256(path, pull.check) != f"sha256:{file.sha256}":
            raise DataError(f"{store.uri}/{result.folder}/{file.name} is damaged: {RESULT} names another SHA-256")
    return final


def _pull_base(record: RunRecord, dest: Path, config: RunConfig, pull: Pull) -> Path:
    return pull_weights(record.base_source, dest, pull, config.model.trust_remote_code).path


# ---- the program that has torch


def _ask(request: Path, stop: Stop) -> int:
    """Starts the program, which ends with this process; it never sees a signal: this side ends it."""
    environment = {
        **os.environ,
        "SFT_JOB_PARENT_PID": str(os.getpid()),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "job.ask", str(request)], env=environment, stdin=subprocess.DEVNULL
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        while not stop.requested():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return _exit_code(process.wait(POLL_SECONDS))
    finally:
        process.kill()
        process.wait()
    raise Stopped(f"stopped by {stop.reason} before the answer was there")


def _exit_code(code: int) -> int:
    if code < 0:
        raise RankCrashed(
            f"the asking program was ended by {signal.Signals(-code).name}; is there memory for the model?"
        )
    return code if code in tuple(ExitCode) else int(ExitCode.CRASHED)


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Stop]:
    """A stop request instead of an end in the middle; afterwards the handlers are as before."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield Stop(0.0).listen()
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
