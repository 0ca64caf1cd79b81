"""What a run needs before its first step, brought to this node: tokenizer, prepared rows, base weights.

Nothing here writes to the run folder: bad data leave it as it was. Rows that an earlier attempt prepared are used as
they are; then the raw data are neither pulled nor hashed again.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from job.config import DataSource, RunConfig
from job.drift import changed_sources
from job.errors import ConfigError, DataError, ExitCode, HardwareError, JobError, RankCrashed, Stopped, error_for
from job.fits import check_fit
from job.host.launcher import start
from job.host.preemption import Stop
from job.initial import check_initial, pull_initial, same_initial
from job.preflight import check_hooks, check_installed, check_lora_targets, check_room, same_hooks
from job.rundir import EventReader, Prepare, RunDir
from job.storage.cache import Cache, pulled_folder
from job.storage.checkpoints import commit_keys, download_files
from job.storage.model_files import CONFIG, read_json
from job.storage.pull import Pull, Pulled, PulledFile, pull_data, pull_files, pull_tokenizer, pull_weights
from job.storage.records import PreparedRecord, RunRecord
from job.storage.store import ObjectStore

POLL_SECONDS = 0.05
EVALUATION_SPLITS = ("validation", "test")


class Listener(Protocol):
    """Whoever shows what is going on."""

    def message(self, text: str) -> None: ...
    def pulling(self, description: str, done: int, total: int | None) -> None: ...
    def handle(self, events: list[dict[str, object]]) -> None: ...


@dataclass(frozen=True)
class Inputs:
    fingerprint: str  # of the prepared rows
    base: dict[str, str]  # file name -> digest
    base_source: str  # with its revision pinned
    tokenizer_source: str  # likewise
    chat: bool
    init: dict[str, str] = field(default_factory=dict)  # file name -> digest
    init_source: str | None = None  # the folder that holds them, its revision pinned
    tokenizer: dict[str, str] = field(default_factory=dict)  # file name -> digest


def gather(
    config: RunConfig, record: RunRecord | None, store: ObjectStore, run: RunDir, stop: Stop, listener: Listener
) -> Inputs:
    """Fill `run.tokenizer`, `run.prepared`, `run.base`, and `run.init` for a run without a commit that starts from it.

    `record` is the run's, once it has begun.

    Raises: DataError, ConfigError, StorageError, HardwareError (no space), Stopped.
    """
    check_installed(config)
    check_hooks(config, begun=record is not None)
    check_room(run)
    pull = pull_for(config, stop, listener)
    base_source = record.base_source if record else config.model.base
    tokenizer_source = record.tokenizer_source if record else config.model.tokenizer or base_source
    tokenizer = bring_tokenizer(config, tokenizer_source, run, pull)
    in_place(run, tokenizer, "tokenizer")
    if record is None:
        _prepare(config, run, pull, stop, listener)
    else:
        reuse(record.prepared, store, run)
        same_hooks(config, run)
    weights = bring_weights(config, base_source, run, pull)
    in_place(run, weights, "base")
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    if record is not None:
        _same_base(record, weights)
        if warning := changed_sources(summary):
            listener.message(warning)
    check_fit(summary, run.base / "config.json", base_source, tokenizer_source, len(config.model.add_tokens))
    check_lora_targets(config, run, listener)
    inputs = Inputs(summary["fingerprint"], weights.files, weights.source, tokenizer.source, summary["chat"])
    inputs = replace(inputs, tokenizer=tokenizer.files)
    if config.model.init is None or commit_keys(store):
        return inputs
    start = bring_init(config, record.init_source if record and record.init_source else None, run, pull, listener)
    if record is not None:
        same_initial(record.init, start)
    return replace(inputs, init=start.files, init_source=start.source)


def prepare_anew(config: RunConfig, base_source: str, run: RunDir, stop: Stop, listener: Listener) -> str:
    """Fill `run.tokenizer` and `run.prepared` with other rows for a run's base; returns the tokenizer's pinned source.

    Raises: as `gather`.
    """
    check_hooks(config, begun=False)
    check_room(run)
    pull = pull_for(config, stop, listener)
    tokenizer = bring_tokenizer(config, config.model.tokenizer or base_source, run, pull)
    in_place(run, tokenizer, "tokenizer")
    _prepare(config, run, pull, stop, listener)
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    base = pull_files(base_source, [CONFIG], run.base, pull, "config")
    check_fit(summary, base.path / CONFIG, base_source, tokenizer.source, len(config.model.add_tokens))
    return tokenizer.source


def pull_everything(config: RunConfig, run: RunDir, stop: Stop, listener: Listener) -> None:
    """`sft-job pull`: all of it into this machine's cache, or SFT_JOB_CACHE; `run` is only where it is linked."""
    cache = Cache(pulled_folder())
    pull = pull_for(config, stop, listener, cache)
    bring_tokenizer(config, config.model.tokenizer or config.model.base, run, pull)
    bring_data(config, run, pull)
    bring_weights(config, config.model.base, run, pull)
    if config.model.init is not None:
        bring_init(config, None, run, pull, listener)
    listener.message(f"all of it is in {cache.folder}")


def pull_for(config: RunConfig, stop: Stop, listener: Listener, cache: Cache | None = None) -> Pull:
    return Pull(cache, config.storage, listener.pulling, stop.requested, listener.message)


@contextmanager
def _field(name: str) -> Iterator[None]:
    """Data errors say which field of the config named the data."""
    try:
        yield
    except (DataError, ConfigError) as error:
        raise type(error)(f"{name}: {error}") from error


def bring_tokenizer(config: RunConfig, source: str, run: RunDir, pull: Pull) -> Pulled:
    with _field("model.tokenizer" if config.model.tokenizer else "model.base"):
        pulled = pull_tokenizer(source, run.tokenizer, pull, config.model.trust_remote_code)
        if CONFIG in pulled.files:  # a tokenizer is found by it: its readers would name our copy of it
            read_json(pulled.path / CONFIG, f"{pulled.source}/{CONFIG}")
        return pulled


def bring_weights(config: RunConfig, source: str, run: RunDir, pull: Pull) -> Pulled:
    with _field("model.base"):
        return pull_weights(source, run.base, pull, config.model.trust_remote_code)


def bring_init(config: RunConfig, pinned: str | None, run: RunDir, pull: Pull, listener: Listener) -> Pulled:
    with _field("model.init"):
        initial = pull_initial(pinned or config.model.init or "", run.init, pull, config.model.trust_remote_code)
        if warning := check_initial(config, initial):
            listener.message(warning)
    in_place(run, initial.pulled, "init")
    return initial.pulled


def in_place(run: RunDir, pulled: Pulled, name: str) -> None:
    """A source that is read where it lies gets a link in the run folder, so that ranks find all in one place."""
    link = run.path / "inputs" / name
    if pulled.path != link:
        link.unlink(missing_ok=True)
        link.symlink_to(pulled.path, target_is_directory=True)


def bring_data(config: RunConfig, run: RunDir, pull: Pull) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """(training's, evaluation's) data files on this machine, as `Prepare` lists them. Raises: DataError, StorageError.

    Where sources have weights, `part` counts the entries of data.train: a weight is that of all files of an entry.
    """
    with _field("data.train"):
        weighed = any(source.weight not in (None, 1) for source in config.data.train)
        train = [
            _described(source, file) | ({"part": part} if weighed else {})
            for part, source in enumerate(config.data.train)
            for file in pull_data(source.uri, run.data, pull, source.split)
        ]
    if not isinstance(config.data.eval, str):
        return train, []
    plain = DataSource(uri=config.data.eval)
    with _field("data.eval"):
        return train, [
            _described(plain, file) for file in pull_data(config.data.eval, run.data, pull, prefer=EVALUATION_SPLITS)
        ]


def _described(source: DataSource, file: PulledFile) -> dict[str, object]:
    return {
        **source.model_dump(mode="json"),
        "uri": file.uri,
        "path": str(file.path),
        "split": file.split,
        "sha256": file.digest.removeprefix("sha256:"),
    }


def _prepare(config: RunConfig, run: RunDir, pull: Pull, stop: Stop, listener: Listener) -> None:
    train, evaluation = bring_data(config, run, pull)
    Prepare(config.to_dict(), train, evaluation).write(run)
    events = EventReader(run.events)
    process = start("job.prepare", [str(run.path)], run, "prepare", {"HF_HUB_OFFLINE": "1"})
    try:
        while process.poll() is None:
            listener.handle(events.read())
            if stop.requested():
                if run.stop_requested() is None:
                    run.request_stop(stop.reason or "stop")
                if stop.seconds_left < stop.budget_seconds / 2:
                    raise Stopped(f"stopped by {stop.reason} while preparing; nothing was committed yet")
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    listener.handle(events.read())
    run.events.unlink(missing_ok=True)
    if process.returncode != 0:
        raise _preparation_error(run, process.returncode)
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    listener.message(f"format of the rows: {', '.join(summary['formats'])}")
    for warning in summary["warnings"]:
        listener.message(warning)


def _preparation_error(run: RunDir, code: int) -> JobError:
    if left := run.read_error(0):
        return error_for(*left)
    if code == ExitCode.HARDWARE:  # a full disk takes no message either
        return HardwareError(
            f"no space left on the filesystem of {run.path}; free some, or set SFT_JOB_HOME to another"
        )
    return RankCrashed(f"preparation left with code {code} and no message")


def reuse(fingerprint: str, store: ObjectStore, run: RunDir) -> None:
    """The rows that the run began with. Raises: DataError when they are damaged, StorageError."""
    key = f"prepared/{fingerprint}.json"
    prepared = PreparedRecord.parse(store.get(key), f"{store.uri}/{key}")
    download_files(store, prepared.folder, prepared.files, run.prepared)


def _same_base(record: RunRecord, weights: Pulled) -> None:
    """Raises: DataError when the base is not the one the run began with. Digests of another kind are not compared."""
    for name, digest in weights.files.items():
        before = record.base.get(name)
        kind = digest.split(":")[0]
        if before is not None and before.split(":")[0] == kind and before != digest:
            raise DataError(
                f"{weights.source}/{name} changed since this run began; restore it, or begin anew in another run folder"
            )
