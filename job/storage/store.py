"""What every store promises: objects under relative keys, written whole or not at all, read back as written."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from job.config.values import begins_like_a_uri
from job.errors import ConfigError, DataError, StorageError

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Entry:
    """One object as its store describes it."""

    key: str
    size: int  # bytes
    etag: str  # opaque; changes when the content does
    crc64nvme: str | None = None  # of the whole content, big-endian, base64, as S3 gives it; None where not known


class NotFound(DataError):
    """No object of that name."""


class Transient(StorageError):
    """The store cannot do this now: throttling, a server's own fault, a conflict. Worth another try."""


class Unreachable(Transient):
    """The store cannot be reached, or the connection broke."""


class BucketOptions(Protocol):
    """How one bucket is reached; fields that are None are left to the standard AWS chain."""

    @property
    def profile(self) -> str | None: ...
    @property
    def endpoint(self) -> str | None: ...
    @property
    def sse(self) -> str | None:
        """Server-side encryption of what is written: "AES256", "aws:kms" or "aws:kms:KEYID"."""


class ObjectStore(Protocol):
    """A flat set of objects below one URI.

    Keys are relative and separated by '/'. Every method raises StorageError where the store refuses (credentials,
    missing bucket, permissions), Transient where another try may help, HardwareError where a disk is full.

    `progress` gets the bytes that are newly there: for downloads in the caller's thread, for uploads perhaps in others.
    A count is negative where bytes are thrown away and transferred again, and 0 as a sign of life. What `progress`
    raises ends the transfer.
    """

    uri: str
    """"s3://bucket/prefix" or an absolute path, without a slash at its end."""

    @property
    def conditional(self) -> bool:
        """False once the store has turned out to know no conditional writes."""

    def get(self, key: str) -> bytes:
        """The content. Raises NotFound."""

    def read(self, key: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start` on, fewer where the object ends before. Raises NotFound."""

    def put(self, key: str, data: bytes) -> None:
        """Writes the object; one that exists is replaced."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """True: the object holds `data`; False: it exists with other content, and is unchanged.

        Of several writers with different data exactly one gets True. An object found to hold these very bytes counts as
        written here, because a retried write meets its own first try: records that need one winner carry a nonce.
        """

    def stat(self, key: str) -> Entry:
        """Raises NotFound."""

    def list(self, prefix: str) -> list[Entry]:
        """All objects whose key starts with `prefix` (so "a/" lists below a), sorted by key; [] when there are none."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; missing ones are no error."""

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        """The whole, verified object at `path`: written beside it, synced, renamed. Returns its entry with the CRC.

        A partial file left by an earlier try is resumed where the object is still the same. With `expect`, an object
        whose etag or size is another by now is refused with StorageError. Raises NotFound; on any failure `path` is
        as it was.
        """

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        """Stores a file; one that exists under the key is replaced."""

    def local_path(self, key: str) -> Path | None:
        """Where the object can be read in place (whether it exists or not); None where it has to be downloaded."""


class Counted:
    """Passes progress on, and takes it back when a transfer starts over."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._count, self._lock = progress, 0, threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._count += count
        if self._progress:
            self._progress(count)

    def take_back(self) -> None:
        self(-self._count)


NO_OPTIONS: Mapping[str, BucketOptions] = MappingProxyType({})


def open_store(
    uri: str,
    buckets: Mapping[str, BucketOptions] = NO_OPTIONS,
    give_up_after_seconds: float = 900,
    stopped: Callable[[], bool] = lambda: False,
) -> ObjectStore:
    """The store at an S3 URI, a path, or memory://NAME (shared by name within this process), behind retries.

    `buckets`: options by bucket name. `stopped` is polled between tries; once it is true the next wait raises Stopped.
    Raises ConfigError for other URIs, StorageError for a missing profile.
    """
    from job.storage.retry import RetryingStore

    scheme, separator, rest = uri.partition("://")
    if not separator and not begins_like_a_uri(uri):
        from job.storage.folder import FolderStore

        return RetryingStore(FolderStore(_absolute(uri)), give_up_after_seconds, stopped=stopped)
    if scheme == "s3":
        from job.storage.s3 import S3Store

        options = buckets.get(rest.partition("/")[0])
        inner = S3Store(uri, options, give_up_after_seconds)
        return RetryingStore(inner, give_up_after_seconds, stopped=stopped)
    if scheme == "memory":
        from job.storage.memory import MemoryStore

        return MemoryStore.shared(rest)
    such = "" if separator else f"; a folder of that name is ./{uri}"
    raise ConfigError(f"{uri}: this is no store; use s3://bucket/prefix or a path on a shared filesystem{such}")


def split_uri(uri: str) -> tuple[str, str]:
    """(URI of the store, key) of a single object: "s3://bucket/a/b.json" -> ("s3://bucket/a", "b.json"); paths alike.

    Raises ConfigError where the URI names no object.
    """
    if is_local(uri) and uri.strip("/"):
        path = _absolute(uri)
        return str(path.parent), path.name
    store, _, key = uri.rpartition("/")
    if not key or store.endswith(("/", ":")):
        raise ConfigError(f"{uri}: this names no single object; use s3://bucket/key or the path of a file")
    return store, key


def exists(store: ObjectStore, key: str) -> bool:
    """Raises: StorageError."""
    try:
        store.stat(key)
    except NotFound:
        return False
    return True


def is_local(uri: str) -> bool:
    """Whether the URI is a path."""
    return "://" not in uri


def check_expected(found: Entry, expect: Entry | None, uri: str) -> None:
    """Raises StorageError where an object is no longer the one that was expected."""
    if expect is not None and (found.etag, found.size) != (expect.etag, expect.size):
        raise StorageError(
            f"{uri} was replaced since it was looked up (etag {expect.etag}, now {found.etag}); run again"
        )


def _absolute(path: str) -> Path:
    if not path:
        raise ConfigError("an empty path is no store; use s3://bucket/prefix or a path on a shared filesystem")
    return Path(path).expanduser().absolute()
