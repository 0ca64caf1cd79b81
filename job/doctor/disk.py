"""The disk below SFT_JOB_HOME: room, the kind of its filesystem, and how fast it takes what has to last."""

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from job.errors import HardwareError, Stopped, no_space
from job.machine import home
from job.report.wording import spoken_bytes
from job.storage.filesystem import MOUNTS, NETWORK, mount_of
from job.storage.finding import Finding, Status
from job.workspace import scratch_folder

LITTLE_BYTES = 20 << 30  # a base of 7B parameters is 15 GB, and a checkpoint comes on top
LEAST_BYTES = 64 << 20  # passes between the processes whatever is read in place
BLOCK_BYTES = 16 << 20
WRITE_SECONDS, WRITE_BYTES = 1.0, 1 << 30
SLOW_BYTES_PER_SECOND = 100e6  # a checkpoint of 1 GB then takes 10 s to lie on disk
SYNCS, SLOW_SYNC_SECONDS = 5, 0.2
PLACE = "SFT_JOB_HOME"


def of_disk(stopped: Callable[[], bool]) -> Iterator[Finding]:
    """Raises: Stopped."""
    try:
        with scratch_folder("doctor") as folder:
            yield room(home(), shutil.disk_usage(folder).free)
            with suppress(OSError):
                yield kind(folder)
            yield from speed(folder, stopped)
    except HardwareError as error:
        yield Finding(PLACE, Status.MISSING, "a run needs a folder of its own there", str(error), error=error)


def room(place: Path, free_bytes: int) -> Finding:
    seen = f"{spoken_bytes(free_bytes)} free in {place}"
    if free_bytes < LEAST_BYTES:
        told = "free some, or set SFT_JOB_HOME to a larger disk"
        return Finding(PLACE, Status.MISSING, told, f"{seen}; {told}", error=HardwareError(told))
    if free_bytes < LITTLE_BYTES:
        told = (
            "little: base, prepared rows and a checkpoint lie there; set it to a larger disk, or read the base in place"
        )
        return Finding(PLACE, Status.WARNING, told, seen)
    return Finding(PLACE, Status.OK, "base, prepared rows and checkpoints lie there", seen)


def kind(folder: Path) -> Finding:
    mount = mount_of(folder.resolve(), MOUNTS.read_text(encoding="utf-8", errors="replace"))
    name, seen = "its filesystem", "unknown" if mount is None else f"{mount.kind} at {mount.point}"
    if mount is not None and mount.kind in NETWORK:
        told = "shared with other machines: a local disk is faster, and nodes must not share SFT_JOB_HOME"
        return Finding(name, Status.WARNING, told, seen)
    if mount is not None and mount.kind in ("tmpfs", "ramfs"):
        return Finding(name, Status.WARNING, "in memory: what lies there is taken from the ranks", seen)
    return Finding(name, Status.OK, "this machine's own", seen)


def speed(folder: Path, stopped: Callable[[], bool]) -> Iterator[Finding]:
    """Of large writes and of small ones, each brought to the disk. Raises: Stopped, HardwareError where it is full."""
    try:
        per_second, latency = _write(folder / "large", stopped), _sync(folder / "small")
    except OSError as error:
        raise no_space(error, folder) or HardwareError(f"{folder} cannot be written: {error.strerror}") from error
    fast = per_second >= SLOW_BYTES_PER_SECOND
    told = "checkpoints are written as fast" if fast else "slow: each checkpoint waits for it; use a local disk"
    yield Finding("writes", Status.OK if fast else Status.WARNING, told, f"{spoken_bytes(per_second)}/s")
    soon = latency <= SLOW_SYNC_SECONDS
    told = "records last as soon as they are written" if soon else "slow: a commit in a folder syncs several times"
    yield Finding("a sync", Status.OK if soon else Status.WARNING, told, f"{latency * 1000:.1f} ms")


def _write(file: Path, stopped: Callable[[], bool]) -> float:
    """Bytes per second, for about a second; random ones, as some filesystems compress."""
    block, written, began = os.urandom(BLOCK_BYTES), 0, time.monotonic()
    limit = min(WRITE_BYTES, shutil.disk_usage(file.parent).free // 2)
    with file.open("wb", buffering=0) as out:
        while written < BLOCK_BYTES or (time.monotonic() - began < WRITE_SECONDS and written + BLOCK_BYTES <= limit):
            if stopped():
                raise Stopped("stopped while the disk was probed")
            written += out.write(block)
            os.fdatasync(out.fileno())
    seconds = time.monotonic() - began
    file.unlink()
    return written / max(seconds, 1e-6)


def _sync(file: Path) -> float:
    """Seconds, the median of several."""
    taken = []
    with file.open("wb", buffering=0) as out:
        for _ in range(SYNCS):
            out.write(b"\0" * 4096)
            began = time.monotonic()
            os.fsync(out.fileno())
            taken.append(time.monotonic() - began)
    return statistics.median(taken)
