"""A folder on a shared filesystem as a store: renames make objects whole, an exclusive link makes one writer win."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from job.errors import DataError, StorageError
from job.storage.checksum import Crc, crc_of_file
from job.storage.disk import TEMPORARY, beside, disk_errors, forget, sync, sync_folder
from job.storage.store import Entry, NotFound, Progress, Transient, check_expected

CHUNK_BYTES = 4 << 20


class FolderStore:
    """Objects are files below `root`, which need not exist yet. Links stay within one folder, as NFS wants it."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.uri = str(self._root)
        self.conditional = True  # by exclusive links

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with disk_errors(path):
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._missing(path) from None

    def read(self, key: str, start: int, size: int) -> bytes:
        path = self._path(key)
        with disk_errors(path):
            try:
                with path.open("rb") as file:
                    file.seek(start)
                    return file.read(size)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise self._missing(path) from None

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with disk_errors(path), beside(path) as (temporary, file):
            file.write(data)
            sync(file)
            temporary.replace(path)
            sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with disk_errors(path), beside(path) as (temporary, file):
            file.write(data)
            sync(file)
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                # Over NFS a link whose answer was lost is tried again by the client and meets itself.
                return path.is_file() and path.read_bytes() == data
            sync_folder(path.parent)
            return True

    def stat(self, key: str) -> Entry:
        path = self._path(key)
        with disk_errors(path):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                raise self._missing(path) from None
            if not path.is_file():
                raise self._missing(path)
            return _entry(key, status)

    def list(self, prefix: str) -> list[Entry]:
        folder = self._root / prefix.rpartition("/")[0]
        with disk_errors(folder):
            return sorted(self._below(folder, prefix, frozenset()), key=lambda entry: entry.key)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            path = self._path(key)
            with disk_errors(path):
                try:
                    path.unlink(missing_ok=True)
                except NotADirectoryError:
                    continue
            self._remove_empty(path.parent)

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        """Copies the file; a partial copy is not resumed, since reading in place (`local_path`) is the usual way."""
        entry = self.stat(key)
        check_expected(entry, expect, f"{self.uri}/{key}")
        source = self._path(key)
        try:
            crc = _copy(source, path, entry.etag, progress)
            with disk_errors(source):
                forget(source)
        except StorageError:
            if not source.exists():  # pruned while it was read
                raise self._missing(source) from None
            raise
        return replace(entry, crc64nvme=crc)

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        with disk_errors(path):
            etag = _etag(path.stat())
        _copy(path, self._path(key), etag, progress)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") or part.startswith(TEMPORARY) or "\0" in part for part in parts):
            raise DataError(
                f"{key!r} is no key for the folder {self.uri}: it must be a relative path without '.' and '..'"
            )
        return self._root.joinpath(*parts)

    def _missing(self, path: Path) -> NotFound:
        return NotFound(f"{path} does not exist; check the name")

    def _below(self, folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
        try:
            status = folder.stat()
            children = list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        if (status.st_dev, status.st_ino) in above:
            return  # a link that leads back up
        for path in children:
            key = path.relative_to(self._root).as_posix()
            if path.name.startswith(TEMPORARY) or not (key.startswith(prefix) or prefix.startswith(key + "/")):
                continue
            if path.is_dir():
                yield from self._below(path, prefix, above | {(status.st_dev, status.st_ino)})
                continue
            try:
                yield _entry(key, path.stat())
            except FileNotFoundError:  # deleted since it was listed, or a link to nowhere
                continue

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _entry(key: str, status: os.stat_result) -> Entry:
    return Entry(key, status.st_size, _etag(status))


def _etag(status: os.stat_result) -> str:
    # A rename brings another inode, so two writes within one tick of the filesystem's clock still differ.
    return f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"


def _copy(source: Path, target: Path, etag: str, progress: Progress | None) -> str:
    """Puts a copy in place that reads back as the source was read, while that stayed the same. Returns the CRC."""
    crc = Crc()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    with disk_errors(target), beside(target) as (temporary, out):
        with disk_errors(source), source.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                crc.update(buffer[:got])
                with disk_errors(target):
                    out.write(buffer[:got])
                if progress:
                    progress(got)
        sync(out)
        if crc_of_file(temporary) != crc:
            raise StorageError(
                f"{target}: what was written is not what was read from {source}; the disk or memory is faulty"
            )
        with disk_errors(source):
            if _etag(source.stat()) != etag:
                raise Transient(f"{source} changed while it was read")
        temporary.replace(target)
        sync_folder(target.parent)
    return crc.base64()
