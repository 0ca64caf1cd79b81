"""A file is whole under its name or not there at all: written under a hidden name, synced, then renamed or linked."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from job.errors import HardwareError, JobError, StorageError
from job.storage.store import Transient

TEMPORARY = ".tmp-"

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}  # what some network filesystems answer
_PASSING = {errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY, errno.ENOTCONN, errno.EHOSTDOWN}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns an OSError about `path` into HardwareError (full), Transient (a passing fault) or StorageError."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> JobError:
    reason = (error.strerror or str(error)).lower()
    if error.errno in _FULL:
        return HardwareError(f"no space left on the filesystem of {path} ({reason}); free some, or use another place")
    if error.errno in _REFUSED:
        return StorageError(f"{path}: {reason}; check the owner and the permissions of the folder and of this user")
    if error.errno in _PASSING:
        return Transient(f"{path}: {reason}; the filesystem does not answer as it should")
    return StorageError(f"{path}: {reason}")


@contextmanager
def beside(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new hidden file in the folder of `path`, made where it is missing; removed at the end unless renamed."""
    temporary = path.with_name(TEMPORARY + secrets.token_hex(8))
    file = _create(temporary)
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes the folder and its parents; each lasts once this returns."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError:
        if not folder.exists():  # another's delete removed it at this very moment
            raise FileNotFoundError(errno.ENOENT, "removed while it was being made", str(folder)) from None
        if not folder.is_dir():
            raise
    sync_folder(folder.parent)


def sync(file: BinaryIO) -> None:
    """The file's bytes are on disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """The names in the folder are on disk when this returns, where the filesystem can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, PermissionError):
        return  # removed since by another's delete; or it may be written to but not read
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def forget(path: Path) -> None:
    """Whoever reads the file next reads the disk, or the server, and not what memory kept of it."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Writes all of `data`: a single pwrite may take less when the disk is nearly full."""
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _create(temporary: Path) -> BinaryIO:
    for _ in range(100):
        # Another writer's delete may remove the folder as empty just now; then it is made again.
        with suppress(FileNotFoundError):
            make_folder(temporary.parent)
            # Not tempfile's 0600: the umask and the folder's group decide who may read, as for any other file.
            return os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b")
    raise FileNotFoundError(errno.ENOENT, "the folder vanishes again and again", str(temporary.parent))
