"""Every record against the run's, every file against its record: by size, then by SHA-256 of all its bytes.

Nothing is written or deleted in the run folder. A folder is read in place; from S3 a file at a time comes to `scratch`.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from job.errors import DataError
from job.storage.disk import disk_errors
from job.storage.records import COMMIT_KEY, RESULT, RUN, Commit, FileRecord, Result, RunRecord
from job.storage.stock import Stock
from job.storage.store import NotFound, ObjectStore, exists

CHUNK_BYTES = 1 << 20
STATE_SUFFIXES = {".safetensors", ".json"}
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill"}

R = TypeVar("R")
Files = Mapping[str, Path]
Load = Callable[[object, Files], list[str]]
"""Loads the local files of a Commit or Result, already hashed; returns what is wrong with them."""


@dataclass(frozen=True)
class Checked:
    """One record with all its files. `problems` are damage; `notes` are harmless."""

    kind: str  # run | prepared | commit | result
    key: str
    files: int = 0
    bytes: int = 0
    step: int | None = None
    attempt: int | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Verification:
    """`read` gets the bytes that were read, and may raise to end it; `load`: see `Load`."""

    def __init__(
        self, store: ObjectStore, stock: Stock, scratch: Path, read: Callable[[int], None], load: Load | None = None
    ) -> None:
        self._store, self._stock, self._scratch, self._read, self._load = store, stock, scratch, read, load

    def run(self) -> Iterator[Checked]:
        """run.json, the prepared rows, the commits from the oldest, the result. Raises: StorageError, HardwareError."""
        stock = self._stock
        yield check_run(self._named(stock.run, RUN))
        if stock.prepared_key is not None and stock.prepared is not None:
            yield self._checked(Checked("prepared", stock.prepared_key), stock.prepared, ())
        for key, commit in reversed(stock.commits):
            yield self._commit(key, commit)
        for lost in stock.lost:
            yield Checked(lost.kind, lost.key, step=lost.step, attempt=lost.attempt, problems=(lost.why,))
        if stock.result is not None:
            step = None if isinstance(stock.result, DataError) else stock.result.step
            yield self._checked(Checked("result", RESULT, step=step), stock.result, _gone(stock, stock.result))

    def _commit(self, key: str, commit: Commit | DataError) -> Checked:
        match = COMMIT_KEY.fullmatch(key)
        assert match is not None
        blank = Checked("commit", key, step=int(match[2]), attempt=int(match[1]), notes=_marked(self._stock, key))
        if isinstance(commit, DataError):
            return replace(blank, problems=(str(self._named(commit, key)),))
        blank = replace(blank, notes=blank.notes + _parent_note(self._stock, commit))
        checked = self._checked(blank, commit, commit_faults(key, commit, self._stock.run))
        if checked.problems and not exists(self._store, key):
            return replace(checked, problems=(), notes=("pruned while it was looked at",))
        return checked

    def _checked(self, blank: Checked, record: object, faults: tuple[str, ...]) -> Checked:
        if isinstance(record, DataError):
            return replace(blank, problems=(str(self._named(record, blank.key)),))
        folder, files = record.folder, record.files  # type: ignore[attr-defined]
        blank = replace(blank, files=len(files), bytes=sum(file.size for file in files))
        problems, local = [*faults, *refused_names(blank.kind, files)], {}
        place = self._scratch / "files"
        try:
            for file in files:
                found = self._file(f"{folder}/{file.name}", file, place / file.name)
                if isinstance(found, str):
                    problems.append(f"{file.name}: {found}")
                else:
                    local[file.name] = found
            # Only what was committed is loaded: bytes that are not may be made to do harm.
            if self._load is not None and not problems and isinstance(record, Commit | Result):
                problems = self._load(record, local)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return replace(blank, problems=tuple(problems))

    def _named(self, record: R, key: str) -> R | DataError:
        """The problem alone: whoever tells it names the record already."""
        if not isinstance(record, DataError):
            return record
        if isinstance(record, NotFound):
            return NotFound("is missing")
        text = str(record).removeprefix(f"{self._store.uri}/{key}").lstrip(" :")
        return DataError(text.replace("is damaged:", "cannot be read:", 1))

    def _file(self, key: str, file: FileRecord, target: Path) -> Path | str:
        """Where its bytes are, or what is wrong. Read once more when they differ: a cache may have been at fault."""
        try:
            if (size := self._store.stat(key).size) != file.size:
                return f"has {size} bytes, {file.size} were committed"
            for _ in range(2):
                path = self._local(key, target)
                if self._sha256(path) == file.sha256:
                    if self._load is None and path == target:
                        target.unlink()
                    return path
                self._read(-file.size)
        except NotFound:
            return "is missing"
        except DataError as error:  # no store would take the name
            return str(error)
        return "is not the file that was committed (SHA-256 differs)"

    def _sha256(self, path: Path) -> str:
        hashed = hashlib.sha256()
        with disk_errors(path), path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                hashed.update(chunk)
                self._read(len(chunk))
        return hashed.hexdigest()

    def _local(self, key: str, target: Path) -> Path:
        if (path := self._store.local_path(key)) is not None:
            return path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        self._store.download(key, target, lambda count: self._read(0))
        return target


def check_run(run: RunRecord | DataError) -> Checked:
    if isinstance(run, DataError):
        missing = "is missing, though the run has got further" if isinstance(run, NotFound) else str(run)
        return Checked("run", RUN, problems=(missing,))
    # As it was written, whatever this version would make of the config.
    text = json.dumps(run.trajectory, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if hashlib.sha256(text.encode()).hexdigest() != run.digest:
        return Checked("run", RUN, problems=("its deciding fields do not have the digest that it names",))
    return Checked("run", RUN)


def commit_faults(key: str, commit: Commit, run: RunRecord | DataError) -> tuple[str, ...]:
    """Where a commit's record contradicts its name, itself, or run.json."""
    match = COMMIT_KEY.fullmatch(key)
    assert match is not None
    faults = []
    if (commit.attempt, commit.step) != (int(match[1]), int(match[2])) or match[3] not in (None, commit.nonce):
        faults.append(f"it says it is attempt {commit.attempt}'s commit of step {commit.step}")
    if isinstance(run, RunRecord) and commit.run_digest != run.digest:
        faults.append("it is another run's: its digest is not that of run.json")
    if isinstance(run, RunRecord) and commit.prepared != run.prepared:
        faults.append("it was trained on other rows than run.json names")
    if commit.parent is not None:
        parent = COMMIT_KEY.fullmatch(commit.parent)
        if parent is None:
            faults.append(f"its parent {commit.parent!r} is no commit")
        elif (int(parent[1]), int(parent[2])) >= (commit.attempt, commit.step):
            faults.append(f"its parent {commit.parent} is not older than itself")
    names = [file.name for file in commit.files]
    if not names or len(set(names)) != len(names):
        faults.append("it names no file" if not names else "it names a file twice")
    return tuple(faults)


def refused_names(kind: str, files: list[FileRecord]) -> list[str]:
    """Files that have no place there: a pickle runs code when it is opened, so none ever is."""
    refused = []
    for name in (file.name for file in files):
        suffix = PurePosixPath(name).suffix.lower()
        if suffix in PICKLES:
            refused.append(f"{name}: a pickle has no place in a run folder; it is never opened")
        elif kind == "commit" and suffix not in STATE_SUFFIXES:
            refused.append(f"{name}: a commit holds safetensors and JSON only; it is never opened")
    return refused


def _parent_note(stock: Stock, commit: Commit) -> tuple[str, ...]:
    if commit.parent is None or commit.parent in [key for key, _ in stock.commits]:
        return ()
    return (f"its parent {commit.parent} was pruned",)


def _gone(stock: Stock, result: Result | DataError) -> tuple[str, ...]:
    if isinstance(result, DataError) or result.commit is None or result.commit in [key for key, _ in stock.commits]:
        return ()
    return (f"its commit {result.commit} is missing, and the newest is never pruned",)


def _marked(stock: Stock, key: str) -> tuple[str, ...]:
    return tuple(
        f"attempt {mark.attempt} marked it as damaged: {mark.reason}" for mark in stock.marks if mark.commit == key
    )
