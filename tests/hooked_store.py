"""A store before another: says what is asked of it, and does harm when told to."""

from collections.abc import Callable, Sequence
from pathlib import Path

from job.storage.store import Entry, ObjectStore, Progress

Hook = Callable[[str, str], None]


def _nothing(operation: str, key: str) -> None:
    pass


class HookedStore:
    """`before` and `after` are called with the name of the operation and its (first) key; what they raise is raised.

    `listing` may change what a list says.
    """

    def __init__(self, inner: ObjectStore, before: Hook = _nothing, after: Hook = _nothing) -> None:
        self.uri, self.inner, self.before, self.after = inner.uri, inner, before, after
        self.listing: Callable[[str, list[Entry]], list[Entry]] = lambda prefix, entries: entries

    @property
    def conditional(self) -> bool:
        return self.inner.conditional

    def get(self, key: str) -> bytes:
        self.before("get", key)
        data = self.inner.get(key)
        self.after("get", key)
        return data

    def read(self, key: str, start: int, size: int) -> bytes:
        self.before("read", key)
        data = self.inner.read(key, start, size)
        self.after("read", key)
        return data

    def put(self, key: str, data: bytes) -> None:
        self.before("put", key)
        self.inner.put(key, data)
        self.after("put", key)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self.before("put_if_absent", key)
        done = self.inner.put_if_absent(key, data)
        self.after("put_if_absent", key)
        return done

    def stat(self, key: str) -> Entry:
        self.before("stat", key)
        entry = self.inner.stat(key)
        self.after("stat", key)
        return entry

    def list(self, prefix: str) -> list[Entry]:
        self.before("list", prefix)
        entries = self.listing(prefix, self.inner.list(prefix))
        self.after("list", prefix)
        return entries

    def delete(self, keys: Sequence[str]) -> None:
        """One by one, as a crash may come between any two."""
        for key in keys:
            self.before("delete", key)
            self.inner.delete([key])
            self.after("delete", key)

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        self.before("download", key)
        entry = self.inner.download(key, path, progress, expect)
        self.after("download", key)
        return entry

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        self.before("upload", key)
        self.inner.upload(path, key, progress)
        self.after("upload", key)

    def local_path(self, key: str) -> Path | None:
        return self.inner.local_path(key)
