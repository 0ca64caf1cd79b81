"""The local folder of one attempt: locked while its supervisor lives, deleted when it ends or is found orphaned."""

import contextlib
import errno
import fcntl
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from job.errors import HardwareError
from job.machine import home
from job.rundir import RunDir

LOCK = "lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network and parallel filesystems


@contextlib.contextmanager
def workspace() -> Iterator[RunDir]:
    """A fresh run folder below `SFT_JOB_HOME`. What killed supervisors left there is deleted, never committed.

    Raises: HardwareError when no folder can be made.
    """
    root = home() / "runs"
    try:
        run, lock = _make(root)
    except OSError as error:
        raise HardwareError(
            f"no working folder can be made below {root}: {error.strerror}; set SFT_JOB_HOME to a folder on a local "
            "disk that can be written"
        ) from error
    with lock:
        try:
            yield run
        finally:
            shutil.rmtree(run.path, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder `<name>-...` below `SFT_JOB_HOME` for as long as the block lasts. Raises: HardwareError."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=home()))
    except OSError as error:
        raise HardwareError(
            f"no working folder can be made in {home()}: {error.strerror}; set SFT_JOB_HOME to one that can be written"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(root: Path) -> tuple[RunDir, IO[str]]:
    """One at a time: a folder that is made but not locked yet would look like an orphan to others.

    It gets its name when it is locked. Until then another tells the machine, on which only one is being made.
    """
    root.mkdir(parents=True, exist_ok=True)
    name, making = secrets.token_hex(6), f".{_boot()}-"
    with (root / LOCK).open("w") as turn:
        if _locked(turn, wait=True):
            for entry in root.iterdir():
                if entry.name.startswith(making):
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.is_dir():
                    _delete_orphan(entry)
        made = RunDir(root / f"{making}{name}").make()
        lock = (made.path / LOCK).open("w")
        lock.write(_boot())
        lock.flush()
        _locked(lock, wait=True)
        return RunDir(made.path.rename(root / name)), lock


def _delete_orphan(folder: Path) -> None:
    """Unless its supervisor lives, or lived on another machine: some shared filesystems keep locks to themselves."""
    with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
        if lock.read() == _boot() and _locked(lock, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _locked(file: IO[str], wait: bool) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    return True
