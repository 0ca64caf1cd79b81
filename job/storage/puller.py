"""Make room for all of it, pull it in parallel through the cache, poll the stop: what every pull of a node shares."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from job.errors import DataError, Stopped
from job.storage import hub
from job.storage.cache import Cache
from job.storage.parallel import in_parallel
from job.storage.sources import Folder, Remote, Source
from job.storage.store import NO_OPTIONS, BucketOptions, Entry, ObjectStore, is_local, open_store

PATIENT_SECONDS = 900.0
SHORT_SECONDS = 30.0  # how long a store is asked about what the cache could stand in for

Progress = Callable[[str, int, int], None]
T = TypeVar("T")


class Pull:
    """What every pull of a node shares: the cache, how stores are opened, who is told, and the stop.

    `progress(description, done_bytes, total_bytes)` may come from any thread; `stopped` is polled between pieces, and
    once it is true the pull raises Stopped (what was pulled so far stays in the cache and is gone on with).
    `buckets` are the config's options by bucket; `notice` gets lines for the user.
    """

    def __init__(
        self,
        cache: Cache | None = None,
        buckets: Mapping[str, BucketOptions] = NO_OPTIONS,
        progress: Progress = lambda description, done, total: None,
        stopped: Callable[[], bool] = lambda: False,
        notice: Callable[[str], None] = lambda line: None,
        parallel: int = 4,
        open_store: Callable[..., ObjectStore] = open_store,
    ) -> None:
        self.cache = cache or Cache()
        self._buckets = buckets
        self._progress, self._stopped, self.notice = progress, stopped, notice
        self._parallel, self._open = parallel, open_store
        self._told: set[str] = set()

    def check(self) -> None:
        if self._stopped():
            raise Stopped("stopped while pulling; what was pulled so far is kept in the cache")

    def watch(self, work: Callable[[], T]) -> T:
        """The result of `work`, unless a stop comes first."""
        return in_parallel(lambda item, _: item(), [work], 1, self.check)[0]

    def remote(self, folder_uri: str) -> Source:
        """What is asked and read through the cache. (A hub's snapshot may turn out to lie on this machine.)"""
        if folder_uri.startswith(hub.SCHEME):
            repository, key = hub.split(folder_uri)
            found = self.watch(lambda: hub.open_hub(repository, self.cache, self.notice))
            self._tell_where(found)
            return found.below(f"{key.rstrip('/')}/" if key else "")
        uri = folder_uri.rstrip("/")
        at = Remote(self._open(uri, self._buckets, PATIENT_SECONDS), "", self.cache, self.notice)
        if at.was_pulled():
            at.asked = self._open(uri, self._buckets, SHORT_SECONDS)
        self._tell_where(at)
        return at

    def _tell_where(self, at: Source) -> None:
        """Once of each source that is read as it was pulled before the run."""
        if isinstance(at, Remote) and at.was_pulled_before() and at.uri not in self._told and self.cache.pulled:
            self._told.add(at.uri)
            self.notice(f"{at.uri} is read in {self.cache.pulled.path}, as it was pulled there")

    def source(self, uri: str) -> Source:
        """The folder that `uri` means. Raises DataError where a local one is not there."""
        if not is_local(uri):
            return self.remote(uri)
        path = local_path(uri)
        if not path.is_dir():
            raise DataError(f"{uri} is not a folder" if path.exists() else f"{uri}: there is no such folder")
        return Folder(path)

    def ask(self, at: Source, names: Sequence[str]) -> dict[str, Entry]:
        """The entries of those names that are there; `at.missing` knows why another is not. Raises StorageError."""
        found = in_parallel(lambda name, _: at.ask(name), names, self._parallel, self.check)
        return {name: entry for name, entry in zip(names, found, strict=True) if entry is not None}

    def take(self, at: Source, entries: Mapping[str, Entry], dest: Path, what: str) -> dict[str, str]:
        """Put each entry at dest/name (nothing is put where the source is read in place). Returns {name: digest}.

        Raises HardwareError before the first byte where there is no room.
        """
        if isinstance(at, Folder):
            return {name: f"size:{entry.size}" for name, entry in entries.items()}
        remote: Remote = at
        self.cache.make_room([(remote.file_uri(name), entry) for name, entry in entries.items()])
        meter = Meter(what, sum(entry.size for entry in entries.values()), self._progress)
        for name, entry in entries.items():
            self.cache.remember(remote.file_uri(name), entry)
            (dest / name).parent.mkdir(parents=True, exist_ok=True)
        remote.pulled()

        def one(name: str, check: Callable[[], None]) -> None:
            entry = entries[name]

            def advance(done: int) -> None:
                check()
                meter.advance(name, done)

            def download(path: Path) -> object:
                return remote.store.download(remote.prefix + name, path, advance, entry)

            self.cache.take(remote.file_uri(name), entry, dest / name, download, check)
            meter.finish(name, entry.size)

        largest_first = sorted(entries, key=lambda name: -entries[name].size)
        in_parallel(one, largest_first, self._parallel, self.check)
        return {name: digest(entry) for name, entry in entries.items()}


class Meter:
    """Adds up what the files of one pull report, from any thread."""

    def __init__(self, what: str, total_bytes: int, progress: Progress) -> None:
        self._what, self._total, self._progress = what, total_bytes, progress
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()
        progress(what, 0, total_bytes)

    def advance(self, name: str, more_bytes: int) -> None:
        self._set(name, self._done.get(name, 0) + more_bytes)

    def finish(self, name: str, size: int) -> None:
        self._set(name, size)

    def _set(self, name: str, done_bytes: int) -> None:
        with self._lock:
            self._done[name] = done_bytes
            self._progress(self._what, min(sum(self._done.values()), self._total), self._total)


def local_path(uri: str) -> Path:
    return Path(uri).expanduser().absolute()


def digest(entry: Entry) -> str:
    return f"crc64nvme:{entry.crc64nvme}:{entry.size}" if entry.crc64nvme else f"etag:{entry.etag}:{entry.size}"
