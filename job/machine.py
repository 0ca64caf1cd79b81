"""This machine: the name that people know it by, and the folder where all that sft-job keeps on it lies."""

import os
import socket
import stat
from pathlib import Path

from job.errors import HardwareError

HOME = "SFT_JOB_HOME"
SLURM_JOB = "SLURM_JOB_ID"
SHARED_TEMPORARY = "/tmp"  # of a node whose jobs get no folder of their own


def node_name() -> str:
    """Slurm's own name for the node, which sinfo shows and `--exclude` takes; the host may call itself otherwise."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def home() -> Path:
    """All writable state of this machine: `SFT_JOB_HOME`, else a folder in the user's cache.

    In a Slurm job, where the user's cache usually is on a filesystem that all nodes share, a folder on the node's own
    disk instead. Raises: HardwareError where that folder is somebody else's.
    """
    if chosen := os.environ.get(HOME):
        return Path(chosen).absolute()
    if os.environ.get(SLURM_JOB):
        return _on_this_node()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sft-job"


def _on_this_node() -> Path:
    """Below the job's own temporary folder; in one that others write to as well, a folder with the user's number.

    sbatch passes the environment on: a TMPDIR of the login node need not be here.
    """
    told = (os.environ.get(name) for name in ("SLURM_TMPDIR", "TMPDIR"))
    found = next((folder for folder in told if folder and os.access(folder, os.W_OK | os.X_OK)), SHARED_TEMPORARY)
    temporary = Path(found).absolute()
    there = temporary.stat()
    if there.st_uid == os.getuid() and not there.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return temporary / "sft-job"
    return _private(temporary / f"sft-job-{os.getuid()}")


def _private(folder: Path) -> Path:
    """Made by this user, for this user: what is run from a cache must not be anybody else's."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        there = folder.lstat()
    except FileExistsError:  # a file or a dangling link
        there = folder.lstat()
    except OSError:
        return folder  # who writes to it says why that fails
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid():
        raise HardwareError(f"{folder} is not this user's own folder; set {HOME} to one on a local disk")
    return folder
