"""One folder per blob: its bytes, the partial file they grow in, and the lock that lets one process write them."""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from job.errors import HardwareError

LOCK_POLL_SECONDS = 0.2
UNLOCKABLE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class Blob:
    """The folder of one blob: `blob` is whole or absent, `lock` is never deleted, anything else is a partial file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "blob"

    def is_whole(self, size: int) -> bool:
        try:
            return self.path.stat().st_size == size
        except FileNotFoundError:
            return False

    def parts(self) -> list[Path]:
        """What an unfinished download left behind."""
        try:
            return [path for path in self.folder.iterdir() if path.name not in ("blob", "lock")]
        except FileNotFoundError:
            return []

    def allocated_bytes(self) -> int:
        """Disk space taken, partial files included (they are pre-sized and sparse: blocks count, not lengths)."""
        total = 0
        for path in (self.path, *self.parts()):
            for file in path.rglob("*") if path.is_dir() else (path,):
                with contextlib.suppress(FileNotFoundError):
                    total += file.lstat().st_blocks * 512
        return total

    def last_used(self) -> float:
        """Seconds since the epoch; 0 where nothing is left."""
        times = [0.0]
        for path in (self.path, *self.parts()):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
        return max(times)

    def is_linked(self) -> bool:
        """True while a run's folder holds it by hard link: deleting it would free no space."""
        try:
            return self.path.stat().st_nlink > 1
        except FileNotFoundError:
            return False

    def discard_parts(self) -> None:
        for path in self.parts():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def discard(self) -> None:
        self.discard_parts()
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Only one process at a time is inside; `check` is called while another one is."""
        make_folder(self.folder)
        with open_shared(self.folder / "lock") as descriptor:
            while not lock(descriptor, fcntl.LOCK_EX):
                check()
                time.sleep(LOCK_POLL_SECONDS)
            yield

    def try_discard(self) -> bool:
        """Delete it unless someone writes it, or reads it through a symlink (see `hold`)."""
        try:
            with open_shared(self.folder / "lock") as descriptor:
                if not lock(descriptor, fcntl.LOCK_EX):
                    return False
                with contextlib.suppress(FileNotFoundError), open_shared(self.path, os.O_RDONLY) as reading:
                    if not lock(reading, fcntl.LOCK_EX):
                        return False
                self.discard()
                return True
        except PermissionError:  # another user's, in a cache that is not shared by group
            return False

    def hold(self) -> int:
        """A descriptor that keeps the blob from being evicted until it is closed: for hand-outs by symlink."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        lock(descriptor, fcntl.LOCK_SH)
        return descriptor


def lock(descriptor: int, kind: int) -> bool:
    """False: another process holds it. Raises HardwareError where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNLOCKABLE:
            raise
        raise HardwareError(
            "the cache's file system has no file locks; set SFT_JOB_HOME, or SFT_JOB_CACHE, to one that has them"
        ) from error
    return True


@contextlib.contextmanager
def open_shared(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        share(path)
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make `path` and its parents, open to the group as far as the umask is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=0o775, exist_ok=True)
    share(path)


def share(path: Path) -> None:
    """Who may read as group may write too: containers with random uids have only the group in common.

    A umask that keeps the group out (077) is respected.
    """
    with contextlib.suppress(PermissionError, FileNotFoundError):
        mode = path.stat().st_mode
        if mode & 0o040 and not mode & 0o020:
            path.chmod(mode | 0o020)
