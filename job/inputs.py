"""What a run needs before its first step, brought to this node: tokenizer, prepared rows, base weights.

Nothing here writes to the run folder: bad data leave it as it was. Rows that an earlier attempt prepared are used as
they are; then the raw data are neither pulled nor hashed again.
"""

import json
import time
from dataclasses import dataclass
from typing import Protocol

from job.config import DataSource, RunConfig
from job.errors import DataError, JobError, RankCrashed, Stopped, error_for
from job.fits import check_fit
from job.host.launcher import start
from job.host.preemption import Stop
from job.rundir import EventReader, Prepare, RunDir
from job.storage.checkpoints import download_files
from job.storage.pull import Pull, Pulled, PulledFile, pull_data, pull_tokenizer, pull_weights
from job.storage.records import PreparedRecord, RunRecord
from job.storage.store import ObjectStore

POLL_SECONDS = 0.05


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


def gather(
    config: RunConfig, record: RunRecord | None, store: ObjectStore, run: RunDir, stop: Stop, listener: Listener
) -> Inputs:
    """Fill `run.tokenizer`, `run.prepared` and `run.base`; `record` is the run's, once it has begun.

    Raises: DataError, StorageError, HardwareError (no space), Stopped.
    """
    pull = pull_for(config, stop, listener)
    base_source = record.base_source if record else config.model.base
    tokenizer_source = record.tokenizer_source if record else config.model.tokenizer or base_source
    tokenizer = pull_tokenizer(tokenizer_source, run.tokenizer, pull, config.model.trust_remote_code)
    _in_place(run, tokenizer, "tokenizer")
    if record is None:
        _prepare(config, run, pull, stop, listener)
    else:
        _reuse(record.prepared, store, run)
    weights = pull_weights(base_source, run.base, pull, config.model.trust_remote_code)
    _in_place(run, weights, "base")
    if record is not None:
        _same_base(record, weights)
    summary = json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))
    check_fit(summary, run.base / "config.json", base_source, tokenizer_source)
    return Inputs(summary["fingerprint"], weights.files, weights.source, tokenizer.source, summary["chat"])


def pull_everything(config: RunConfig, run: RunDir, stop: Stop, listener: Listener) -> None:
    """`sft-job pull`: tokenizer, data and weights into this machine's cache; `run` is only where they are linked."""
    pull = pull_for(config, stop, listener)
    pull_tokenizer(config.model.tokenizer or config.model.base, run.tokenizer, pull, config.model.trust_remote_code)
    _pull_data(config, run, pull)
    pull_weights(config.model.base, run.base, pull, config.model.trust_remote_code)


def pull_for(config: RunConfig, stop: Stop, listener: Listener) -> Pull:
    return Pull(buckets=config.storage, progress=listener.pulling, stopped=stop.requested, notice=listener.message)


def _in_place(run: RunDir, pulled: Pulled, name: str) -> None:
    """A source that is read where it lies gets a link in the run folder, so that ranks find all in one place."""
    link = run.path / "inputs" / name
    if pulled.path != link:
        link.symlink_to(pulled.path, target_is_directory=True)


def _pull_data(config: RunConfig, run: RunDir, pull: Pull) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    train = [_described(source, file) for source in config.data.train for file in pull_data(source.uri, run.data, pull)]
    if not isinstance(config.data.eval, str):
        return train, []
    plain = DataSource(uri=config.data.eval)
    return train, [_described(plain, file) for file in pull_data(config.data.eval, run.data, pull)]


def _described(source: DataSource, file: PulledFile) -> dict[str, object]:
    return {
        **source.model_dump(mode="json"),
        "uri": file.uri,
        "path": str(file.path),
        "sha256": file.digest.removeprefix("sha256:"),
    }


def _prepare(config: RunConfig, run: RunDir, pull: Pull, stop: Stop, listener: Listener) -> None:
    train, evaluation = _pull_data(config, run, pull)
    Prepare(config.to_dict(), train, evaluation).write(run)
    events = EventReader(run.events)
    process = start("job.prepare", [str(run.path)], run, "prepare", {"HF_HUB_OFFLINE": "1"})
    try:
        while process.poll() is None:
            listener.handle(events.read())
            if stop.requested():
                run.request_stop(stop.reason or "stop")
                if stop.seconds_left < stop.grace_seconds / 2:
                    raise Stopped(f"stopped by {stop.reason} while preparing; nothing was committed yet")
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    listener.handle(events.read())
    run.events.unlink(missing_ok=True)
    if process.returncode != 0:
        raise _preparation_error(run, process.returncode)
    for warning in json.loads((run.prepared / "summary.json").read_text(encoding="utf-8"))["warnings"]:
        listener.message(warning)


def _preparation_error(run: RunDir, code: int) -> JobError:
    if left := run.read_error(0):
        return error_for(*left)
    return RankCrashed(f"preparation left with code {code} and no message")


def _reuse(fingerprint: str, store: ObjectStore, run: RunDir) -> None:
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
