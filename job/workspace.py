"""The local folder of one attempt: locked while its supervisor lives, deleted when it ends or is found orphaned."""

import contextlib
import fcntl
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from job.rundir import RunDir, home

LOCK = "lock"


@contextlib.contextmanager
def workspace() -> Iterator[RunDir]:
    """A fresh run folder below `SFT_JOB_HOME`. What killed supervisors left there is deleted, never committed."""
    root = home() / "runs"
    root.mkdir(parents=True, exist_ok=True)
    for entry in root.iterdir():
        _delete_orphan(entry)
    run = RunDir(root / secrets.token_hex(6)).make()
    with (run.path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield run
        finally:
            shutil.rmtree(run.path, ignore_errors=True)


def _delete_orphan(folder: Path) -> None:
    try:
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # locked: its supervisor lives; or just being made
        return
