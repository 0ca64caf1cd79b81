"""What a run folder holds: its records as they can be read, the marks on commits, and files that no record names."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from job.errors import ConfigError, DataError
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.records import FORK, RESULT, RUN, Commit, FileRecord, PreparedRecord, Record, Result, RunRecord
from job.storage.store import NotFound, ObjectStore, exists

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Mark:
    """What an attempt said when it could not read a commit whole."""

    commit: str  # key
    attempt: int
    reason: str


@dataclass(frozen=True)
class Unrecorded:
    """Files in one folder that no record names: a killed upload, or one under way. No run looks at them."""

    folder: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Stock:
    """A record that cannot be read is a DataError in its place. Commits are newest first."""

    run: RunRecord | DataError
    prepared_key: str | None  # None: run.json does not say
    prepared: PreparedRecord | DataError | None
    commits: list[tuple[str, Commit | DataError]]
    result: Result | DataError | None
    marks: list[Mark] = field(default_factory=list)
    unrecorded: list[Unrecorded] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Begun, and nothing was committed yet."""
        return isinstance(self.run, NotFound) and not self.commits and self.result is None

    def total_bytes(self) -> int:
        records = [self.prepared, self.result, *(record for _, record in self.commits)]
        return sum(file.size for record in records if not isinstance(record, DataError | None) for file in record.files)


def take_stock(store: ObjectStore) -> Stock:
    """Read every record once. Raises: ConfigError where the folder is no run at all; StorageError."""
    run = _read(store, RUN, RunRecord)
    keys = commit_keys(store)
    result = _read(store, RESULT, Result)
    if isinstance(run, NotFound) and not keys and isinstance(result, NotFound) and not _begun(store):
        raise ConfigError(f"{store.uri} is no run folder: it has no run.json, attempt or commit; check the name")
    if isinstance(run, NotFound) and keys and exists(store, FORK):
        run = DataError("is missing: the fork that was begun here is not finished; give the same fork command again")
    prepared_key = None if isinstance(run, DataError) else f"prepared/{run.prepared}.json"
    prepared = None if prepared_key is None else _read(store, prepared_key, PreparedRecord)
    commits: list[tuple[str, Commit | DataError]] = []
    for key in keys:
        try:
            commits.append((key, read_commit(store, key)))
        except DataError as error:
            if not isinstance(error, NotFound):  # else it was pruned since it was listed
                commits.append((key, error))
    stock = Stock(run, prepared_key, prepared, commits, None if isinstance(result, NotFound) else result, _marks(store))
    return Stock(**{**vars(stock), "unrecorded": _unrecorded(store, stock)})


def _read(store: ObjectStore, key: str, kind: type[R]) -> R | DataError:
    try:
        return kind.parse(store.get(key), f"{store.uri}/{key}")
    except DataError as error:
        return error


def _begun(store: ObjectStore) -> bool:
    return bool(store.list("attempts/")) or exists(store, FORK)


def _marks(store: ObjectStore) -> list[Mark]:
    found = []
    for entry in store.list("damaged/"):
        stem, _, attempt = PurePosixPath(entry.key).stem.rpartition("-")
        try:
            reason = str(json.loads(store.get(entry.key))["reason"])
        except (DataError, ValueError, KeyError, TypeError):
            reason = "no reason can be read"
        found.append(Mark(f"commits/{stem}.json", int(attempt) if attempt.isdigit() else 0, reason))
    return found


def _unrecorded(store: ObjectStore, stock: Stock) -> list[Unrecorded]:
    """By folder. Silent where a record cannot be read: it may name any file."""
    records = [stock.prepared, stock.result, *(record for _, record in stock.commits)]
    if any(isinstance(record, DataError) for record in records):
        return []
    named = {RESULT, *_named(stock.prepared), *_named(stock.result)}
    for _, commit in stock.commits:
        named |= _named(commit)
    sums: dict[str, list[int]] = defaultdict(list)
    for top in ("checkpoints/", "final/", "prepared/"):
        for entry in store.list(top):
            folder = entry.key.rpartition("/")[0]
            if entry.key not in named and not (top == "prepared/" and folder == "prepared"):
                sums[folder].append(entry.size)
    return [Unrecorded(folder, len(sizes), sum(sizes)) for folder, sizes in sorted(sums.items())]


def _named(record: object) -> set[str]:
    folder, files = getattr(record, "folder", ""), getattr(record, "files", ())
    return keys_of(folder, files)


def keys_of(folder: str, files: Iterable[FileRecord]) -> set[str]:
    return {f"{folder}/{file.name}" for file in files}
