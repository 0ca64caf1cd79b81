"""Where files are pulled from: a folder read in place, or a store asked by name and read through the cache."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from job.errors import DataError, JobError, StorageError
from job.storage.cache import Cache
from job.storage.s3_errors import status_of
from job.storage.store import Entry, NotFound, Transient


class Readable(Protocol):
    """The reading part of an ObjectStore: all that a source needs."""

    @property
    def uri(self) -> str: ...

    def stat(self, key: str) -> Entry: ...

    def list(self, prefix: str) -> list[Entry]: ...

    def read(self, key: str, start: int, size: int) -> bytes: ...

    def download(
        self, key: str, path: Path, progress: Callable[[int], None] | None = None, expect: Entry | None = None
    ) -> Entry: ...


@dataclass(frozen=True)
class Folder:
    """A folder of this machine or of a shared file system: nothing is copied."""

    path: Path

    @property
    def uri(self) -> str:
        return str(self.path)

    def stat(self, name: str) -> Entry | None:
        """Raises DataError where the file is there and cannot be looked at."""
        try:
            found = (self.path / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"{self.path / name} cannot be read: {error.strerror}") from error
        return Entry(name, found.st_size, f"{found.st_mtime_ns}")

    def below(self, folder: str) -> "Folder":
        return Folder(self.path / folder)

    def matched(self, pattern: str, match: Callable[[str], bool]) -> list[tuple[str, Entry]]:
        """(name, entry) of the folder's own files that match, sorted."""
        names = sorted(path.name for path in self.path.iterdir() if path.is_file() and match(path.name))
        return [(name, entry) for name in names if (entry := self.stat(name)) is not None]

    def ask(self, name: str) -> Entry | None:
        return self.stat(name)

    def missing(self, message: str) -> JobError:
        return DataError(message)

    def file_uri(self, name: str) -> str:
        return str(self.path / name)


@dataclass
class Remote:
    """Names below `prefix` of a store.

    When the store cannot be reached, what the cache still holds of the source stands in for it (and `notice` is told):
    a node without network runs on what was pulled before. A store that refuses is another matter.
    What lies in SFT_JOB_CACHE was pulled for this very run: that is not asked for at all.
    """

    store: Readable
    prefix: str  # "" or ends in "/"
    cache: Cache
    notice: Callable[[str], None]
    asked: Readable | None = None  # the same store with less patience, for what the cache could stand in for
    _lost: StorageError | None = field(default=None, init=False)
    _refused: StorageError | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def uri(self) -> str:
        return self.file_uri("").rstrip("/")

    def below(self, folder: str) -> "Remote":
        """`folder`: "" or ending in "/"."""
        return Remote(self.store, self.prefix + folder, self.cache, self.notice, self.asked)

    def file_uri(self, name: str) -> str:
        return f"{self.store.uri.rstrip('/')}/{self.prefix}{name}"

    def stat(self, name: str) -> Entry | None:
        """The entry of a name, None where there is none. Raises StorageError."""
        if (known := self.cache.answer(self.file_uri(name))) is not None:
            return known.entry and replace(known.entry, key=self.prefix + name)
        if self._lost is None:
            try:
                return (self.asked or self.store).stat(self.prefix + name)
            except NotFound:
                self.cache.remember_absent(self.file_uri(name))
                return None
            except Transient as error:
                self._fall_back(error)
        return self._recalled(name)

    def matched(self, pattern: str, match: Callable[[str], bool]) -> list[tuple[str, Entry]]:
        """(name, entry) of what matches below the prefix, sorted; `pattern` is what the answer is remembered by.

        Only a whole answer is given: half of a data set must never pass for all of it. Raises StorageError.
        """
        record = f"matches of {self.file_uri(pattern)}"
        if (pulled := self._pulled_before(record)) is not None:
            return pulled
        try:
            listed = (self.asked or self.store).list(self.prefix)
        except Transient as error:
            self._fall_back(error)
            noted = self.cache.noted(record)
            if noted is None:
                raise
            entries = [(name, self._recalled(name)) for name in noted["names"]]
            if any(entry is None for _, entry in entries):
                raise
            return [(name, entry) for name, entry in entries if entry is not None]
        below = ((entry.key.removeprefix(self.prefix), entry) for entry in listed)
        found = sorted(((name, entry) for name, entry in below if match(name)), key=lambda pair: pair[0])
        self.cache.note(record, {"names": [name for name, _ in found]})
        return found

    def _pulled_before(self, record: str) -> list[tuple[str, Entry]] | None:
        """All of the answer, or nothing."""
        noted = self.cache.noted_before(record)
        if noted is None:
            return None
        answers = [(name, self.cache.answer(self.file_uri(name))) for name in noted["names"]]
        entries = [
            (name, replace(found.entry, key=self.prefix + name)) for name, found in answers if found and found.entry
        ]
        return entries if len(entries) == len(answers) else None

    def pulled(self) -> None:
        """Remember that the source was known here: from now on the cache may stand in for it."""
        self.cache.note(f"source {self.uri}", {})

    def was_pulled(self) -> bool:
        return self.cache.noted(f"source {self.uri}") is not None

    def was_pulled_before(self) -> bool:
        """For this run, into SFT_JOB_CACHE."""
        return self.cache.noted_before(f"source {self.uri}") is not None

    def missing(self, message: str) -> JobError:
        """The error to raise when something needed is not there: what the cache lacks, the store may well have."""
        return self._lost or self._refused or DataError(message)

    def ask(self, name: str) -> Entry | None:
        """As `stat`, but what is refused is not there, until it is `missing`: who may not list is told no 404."""
        try:
            return self.stat(name)
        except StorageError as error:
            if status_of(error.__cause__)[1] != 403:
                raise
            self._refused = error
            self.cache.remember_absent(self.file_uri(name))
            return None

    def _recalled(self, name: str) -> Entry | None:
        """What the cache holds; None for what the source did not have. Raises StorageError for what was evicted."""
        uri = self.file_uri(name)
        entry = self.cache.recall(uri)
        if entry is not None and self._lost and not self.cache.holds(uri, entry):
            raise self._lost
        return entry and replace(entry, key=self.prefix + name)

    def _fall_back(self, error: StorageError) -> None:
        with self._lock:
            if self._lost is not None:
                return
            if not self.was_pulled():
                raise error
            self._lost = error
        self.notice(f"{error}; going on with what was pulled from {self.uri} before")


Source = Folder | Remote
