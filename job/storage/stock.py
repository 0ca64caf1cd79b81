"""What a run folder holds: its records as they can be read, what attempts say was there and is not, marks, strays."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TypeVar

from job.errors import ConfigError, DataError, ExitCode
from job.storage.attempts import Owner, attempts
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.records import (
    COMMIT_KEY,
    FORK,
    RESULT,
    RUN,
    Commit,
    EndRecord,
    FileRecord,
    PreparedRecord,
    Record,
    Result,
    RunRecord,
)
from job.storage.store import NotFound, ObjectStore, exists

R = TypeVar("R", bound=Record)
UNFINISHED_FORK = "the fork that was begun here is not finished"


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
class Lost:
    """A record that was there when an attempt ended, and is never deleted without a newer one."""

    kind: str  # commit | result
    key: str  # of a commit with `*` for the attempt that wrote it: this one, or one before
    attempt: int
    step: int
    why: str


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
    lost: list[Lost] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Begun, and nothing was committed yet."""
        return isinstance(self.run, NotFound) and not self.commits and self.result is None and not self.lost

    def total_bytes(self) -> int:
        records = [self.prepared, self.result, *(record for _, record in self.commits)]
        return sum(file.size for record in records if not isinstance(record, DataError | None) for file in record.files)


def take_stock(store: ObjectStore) -> Stock:
    """Read every record once. Raises: ConfigError where the folder is no run at all; StorageError."""
    ends = _ends(store)  # before what they speak of: what is written meanwhile is no loss
    run = _read(store, RUN, RunRecord)
    keys = commit_keys(store)
    result = _read(store, RESULT, Result)
    if isinstance(run, NotFound) and not keys and isinstance(result, NotFound) and not _begun(store):
        raise ConfigError(f"{store.uri} is no run folder: it has no run.json, attempt or commit; check the name")
    if isinstance(run, NotFound) and keys and exists(store, FORK):
        run = DataError(f"is missing: {UNFINISHED_FORK}; give the same fork command again")
    commits: list[tuple[str, Commit | DataError]] = []
    for key in keys:
        try:
            commits.append((key, read_commit(store, key)))
        except DataError as error:
            if not isinstance(error, NotFound):  # else it was pruned since it was listed
                commits.append((key, error))
    # Every commit names the run's rows, so they are known where run.json cannot say it.
    named = [
        record.prepared for record in (run, *(commit for _, commit in commits)) if not isinstance(record, DataError)
    ]
    prepared_key = f"prepared/{named[0]}.json" if named else None
    prepared = None if prepared_key is None else _read(store, prepared_key, PreparedRecord)
    there = None if isinstance(result, NotFound) else result
    stock = Stock(
        run, prepared_key, prepared, commits, there, _marks(store), lost=losses(ends, keys, there is not None)
    )
    return Stock(**{**vars(stock), "unrecorded": _unrecorded(store, stock)})


def losses(ends: list[tuple[Owner, EndRecord]], keys: list[str], finished: bool) -> list[Lost]:
    """What the attempts' `ends`, newest first, say was there, and `keys`, the commits, and the result do not show.

    The newest commit is never pruned: the one that an attempt ended on stands, or a later attempt's does.
    """
    if finished:
        return []  # the result names the newest commit itself
    found: dict[str, Lost] = {}
    there = [(int(match[1]), int(match[2])) for key in keys if (match := COMMIT_KEY.fullmatch(key))]
    for owner, end in ends:
        last = (owner.attempt, end.step)
        if end.step > 0 and not any(one >= last or one[1] == end.step for one in there):
            why = f"is missing: attempt {owner.attempt} ended on it, and there is no newer one ({owner.end_key})"
            found.setdefault("commit", Lost("commit", f"commits/*-{end.step:08d}.json", *last, why))
        if end.code == ExitCode.DONE:
            why = f"is missing: attempt {owner.attempt} had finished the run ({owner.end_key})"
            found.setdefault("result", Lost("result", RESULT, *last, why))
    return [found[kind] for kind in ("commit", "result") if kind in found]


def _read(store: ObjectStore, key: str, kind: type[R]) -> R | DataError:
    try:
        return kind.parse(store.get(key), f"{store.uri}/{key}")
    except DataError as error:
        return error


def _ends(store: ObjectStore) -> list[tuple[Owner, EndRecord]]:
    """Newest first; who vanished, or left what cannot be read, says nothing."""
    found = ((owner, _read(store, owner.end_key, EndRecord)) for owner in reversed(attempts(store)))
    return [(owner, end) for owner, end in found if not isinstance(end, DataError)]


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
    """By folder. Silent where a record cannot be read: it may name any file. Rows are written before run.json."""
    records = [stock.prepared, stock.result, *(record for _, record in stock.commits)]
    if any(isinstance(record, DataError) for record in records):
        return []
    named = {RESULT, *_named(stock.prepared), *_named(stock.result)}
    for _, commit in stock.commits:
        named |= _named(commit)
    sums: dict[str, list[int]] = defaultdict(list)
    for top in ("checkpoints/", "final/", "prepared/"):
        entries = store.list(top)
        if top == "prepared/":
            keys = [entry.key for entry in entries if entry.key.count("/") == 1]
            named = named.union(keys, *(_named(_read(store, key, PreparedRecord)) for key in keys))
        for entry in entries:
            if entry.key not in named:
                sums[entry.key.rpartition("/")[0]].append(entry.size)
    return [Unrecorded(folder, len(sizes), sum(sizes)) for folder, sizes in sorted(sums.items())]


def _named(record: object) -> set[str]:
    folder, files = getattr(record, "folder", ""), getattr(record, "files", ())
    return keys_of(folder, files)


def keys_of(folder: str, files: Iterable[FileRecord]) -> set[str]:
    return {f"{folder}/{file.name}" for file in files}
