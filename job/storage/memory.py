"""A store in this process's memory, for simulations; it can also behave like a store without conditional writes."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from job.storage.checksum import crc_of
from job.storage.disk import beside, disk_errors, sync, sync_folder
from job.storage.store import Entry, NotFound, Progress, check_expected


class MemoryStore:
    """`conditional=False`: put_if_absent overwrites without a word and says True, as some servers do."""

    conditional = True  # as far as it lets on
    _by_name: ClassVar[dict[str, "MemoryStore"]] = {}
    _names = threading.Lock()

    def __init__(self, name: str = "", conditional: bool = True) -> None:
        self.uri = f"memory://{name.strip('/')}"
        self._conditional = conditional
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, str]] = {}  # content and etag

    @classmethod
    def shared(cls, name: str) -> "MemoryStore":
        """The same store for everyone in this process who asks for this name."""
        with cls._names:
            return cls._by_name.setdefault(name.strip("/"), cls(name))

    def copy(self) -> "MemoryStore":
        """A store of its own with the same objects."""
        other = MemoryStore(self.uri.removeprefix("memory://"), self._conditional)
        with self._lock:
            other._objects = self._objects.copy()
        return other

    def get(self, key: str) -> bytes:
        return self._find(key)[0]

    def read(self, key: str, start: int, size: int) -> bytes:
        return self._find(key)[0][start : start + size]

    def put(self, key: str, data: bytes) -> None:
        with self._lock:
            self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        with self._lock:
            if key in self._objects and self._conditional:
                return self._objects[key][0] == data
            self._write(key, data)
            return True

    def stat(self, key: str) -> Entry:
        data, etag = self._find(key)
        return Entry(key, len(data), etag, crc_of(data).base64())

    def list(self, prefix: str) -> list[Entry]:
        with self._lock:
            keys = sorted(key for key in self._objects if key.startswith(prefix))
            return [Entry(key, len(self._objects[key][0]), self._objects[key][1]) for key in keys]

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        data, etag = self._find(key)
        entry = Entry(key, len(data), etag)
        check_expected(entry, expect, f"{self.uri}/{key}")
        with disk_errors(path), beside(path) as (temporary, file):
            file.write(data)
            sync(file)
            if progress:
                progress(len(data))
            temporary.replace(path)
            sync_folder(path.parent)
        return replace(entry, crc64nvme=crc_of(data).base64())

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        with disk_errors(path):
            data = path.read_bytes()
        if progress:
            progress(len(data))
        self.put(key, data)

    def local_path(self, key: str) -> Path | None:
        return None

    def _write(self, key: str, data: bytes) -> None:
        self._objects[key] = (bytes(data), hashlib.blake2b(data, digest_size=16).hexdigest())

    def _find(self, key: str) -> tuple[bytes, str]:
        with self._lock:
            if key not in self._objects:
                raise NotFound(f"{self.uri}/{key} does not exist; check the name")
            return self._objects[key]
