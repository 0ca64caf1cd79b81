"""A run folder is made from a commit of another run. What is to become of it first, `run.json` last.

Everything that is written follows from `fork.json`, which is written once: whoever repeats a fork that was killed
writes the same bytes again. The commit is of attempt 0, older than any claim. Without `run.json` nobody runs it.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.config.changes import differing
from job.errors import ConfigError, DataError, StorageError
from job.storage.attempts import Owner, attempts, now
from job.storage.checkpoints import commit_keys, download_files, step_of, upload_folder
from job.storage.records import FORK, RUN, Commit, FileRecord, ForkRecord, Origin, PreparedRecord, RunRecord
from job.storage.store import NotFound, ObjectStore, exists


@dataclass(frozen=True)
class Taken:
    """A commit whose files were brought here and verified."""

    key: str
    digest: str  # SHA-256, hex, of the record's bytes
    commit: Commit
    folder: Path


def take_newest(
    store: ObjectStore, wanted: int | None, only: str | None, target: Path, say: Callable[[str], None]
) -> Taken:
    """The newest commit that verifies, of the step `wanted` where one is; `only`: this very commit.

    The source is only read: damage is told, not marked. Raises: ConfigError where there is no such commit, DataError
    where there is and none is whole.
    """
    passed: dict[str, str] = {}
    again = True
    while True:
        keys = [key for key in commit_keys(store) if only in (None, key) and wanted in (None, step_of(key))]
        key = next((key for key in keys if key not in passed), None)
        if key is None:
            break
        try:
            return take(store, key, target)
        except NotFound as missing:  # its owner may be pruning: look once more
            passed |= {} if again else {key: str(missing)}
            again = False
        except DataError as damage:
            passed[key] = str(damage)
            say(f"commit {key} is damaged: {damage}{'; taking the one before' if wanted is None else ''}")
    steps = sorted({step_of(key) for key in commit_keys(store)})
    others = [step for step in steps if step != wanted]
    if passed and wanted is not None:
        there = (
            f"there are {', '.join(map(str, others))}: fork {store.uri}@{others[-1]}"
            if others
            else "it is the only one"
        )
        raise DataError(
            f"{store.uri}: the commit of step {wanted} is not whole ({next(iter(passed.values()))}); {there}"
        )
    if passed:
        raise DataError(f"{store.uri}: no commit to go on from is whole: {next(iter(passed.values()))}")
    if only is not None:
        raise ConfigError(
            f"{store.uri}/{only}, which this fork was begun with, is gone; fork to another folder, or delete this one"
        )
    if not steps:
        raise ConfigError(f"{store.uri} has no commit to go on from yet; run it first")
    raise ConfigError(f"{store.uri} has no commit of step {wanted}; there are {', '.join(map(str, steps))}")


def take(store: ObjectStore, key: str, target: Path) -> Taken:
    """Raises: DataError when a file is damaged or missing."""
    shutil.rmtree(target, ignore_errors=True)
    data = store.get(key)
    found = Commit.parse(data, f"{store.uri}/{key}")
    download_files(store, found.folder, found.files, target)
    return Taken(key, hashlib.sha256(data).hexdigest(), found, target)


def begun_fork(store: ObjectStore) -> ForkRecord | None:
    """What this folder is to become, or has become. Raises: ConfigError where it holds something else."""
    try:
        return ForkRecord.parse(store.get(FORK), f"{store.uri}/{FORK}")
    except NotFound:
        pass
    if attempts(store) or commit_keys(store) or exists(store, RUN):
        raise ConfigError(f"{store.uri} is a run of its own; fork to a folder that is no run yet")
    if there := store.list(""):
        raise ConfigError(f"{store.uri} is not empty, it holds {there[0].key}; fork to a folder of its own")
    return None


def declare(store: ObjectStore, record: ForkRecord, begun: ForkRecord | None) -> ForkRecord:
    """Write `fork.json`, once; returns it as it stands. Raises: ConfigError when another fork was begun there."""
    if begun is None:
        store.put_if_absent(FORK, record.dump())
        begun = ForkRecord.parse(store.get(FORK), f"{store.uri}/{FORK}")
    if (different := _differences(record, begun)) is not None:
        raise ConfigError(f"{store.uri} is another fork ({different}); fork to another folder")
    return begun


def graft(
    store: ObjectStore, fork: ForkRecord, record: RunRecord, prepared: Path, commits: Sequence[Taken], keep: bool
) -> str:
    """Prepared rows, the commits' files and records, then `run.json`; returns the newest commit's key.

    `commits`: oldest first. `keep`: whether their evaluations travel along.
    """
    nonce = hashlib.sha256(fork.dump()).hexdigest()[:12]
    owner = Owner(0, nonce)
    folder = f"prepared/{fork.prepared}/{owner.name}"
    files = upload_folder(store, prepared, folder)
    _put(store, f"prepared/{fork.prepared}.json", PreparedRecord(folder=folder, files=files).dump())
    for taken in commits:
        step = taken.commit.step
        place = f"checkpoints/{owner.attempt:04d}-{nonce}/step-{step}-{nonce[:8]}"
        files = upload_folder(store, taken.folder, place)
        if _hashes(files) != _hashes(taken.commit.files):
            raise DataError(f"the files of {taken.key} changed on this machine while they were copied; fork again")
        changes = {
            "attempt": owner.attempt,
            "nonce": nonce,
            "folder": place,
            "files": files,
            "parent": None,
            "run_digest": record.digest,
            "prepared": fork.prepared,
            "evaluations": taken.commit.evaluations if keep else [],
            "created": fork.created,
            "origin": Origin(run=fork.origin.run, commit=taken.key, digest=taken.digest),
        }
        _put(store, owner.commit_key(step), taken.commit.model_copy(update=changes).dump())
    _put(store, RUN, record.dump())
    return owner.commit_key(commits[-1].commit.step)


def fork_record(origin: Origin, config: dict[str, object], prepared: str, version: str) -> ForkRecord:
    return ForkRecord(origin=origin, config=config, prepared=prepared, version=version, created=now())


def _hashes(files: Sequence[FileRecord]) -> dict[str, str]:
    return {file.name: file.sha256 for file in files}


def _put(store: ObjectStore, key: str, data: bytes) -> None:
    if not store.put_if_absent(key, data):
        raise StorageError(f"{store.uri}/{key} exists with other content; fork to another folder")


def _differences(ours: ForkRecord, theirs: ForkRecord) -> str | None:
    """In words; None where both are the same fork. Where the new folder's path is written differently says nothing."""
    if ours.origin != theirs.origin:
        return f"of {theirs.origin.run}, {theirs.origin.commit}"
    if fields := [path for path in differing(ours.config, theirs.config) if path != "run"]:
        return f"with another {', '.join(fields)}"
    return None if ours.prepared == theirs.prepared else "its data differ"
