"""What a run needs of the filesystem under its folder: exclusive files, links, renames, syncs; and what kind it is."""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from job.errors import HardwareError
from job.storage.disk import disk_error, make_folder, sync_folder
from job.storage.finding import Finding, Lacking, Probe, Status

LITTLE_BYTES = 1 << 30
MOUNTS = Path("/proc/mounts")

NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "virtiofs", "glusterfs",
    "panfs", "wekafs", "orangefs", "pvfs2", "quobyte",
    "fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs", "fuse.sshfs", "fuse.quobyte", "fuse.lizardfs", "fuse.moosefs",
}  # fmt: skip
BUCKETS = {
    "fuse.s3fs", "fuse.gcsfuse", "fuse.mountpoint-s3", "fuse.rclone", "fuse.goofys", "fuse.geesefs", "fuse.blobfuse",
    "fuse.blobfuse2",
}  # fmt: skip
VOLATILE = {"tmpfs", "ramfs", "devtmpfs"}

EXCLUSIVE = Probe(
    "make a file exclusively",
    "files are written beside each other without harm",
    "no file of a run can be written; check the owner and the permissions",
)
LINK = Probe(
    "link it, refused where one is",
    "of two jobs started at once, one owns the run",
    "this filesystem has no exclusive hard links, so no job can claim the run: use another one, or s3://",
    needs=(EXCLUSIVE.name,),
)
RENAME = Probe(
    "rename over another",
    "files are whole under their name, or not there",
    "half-written records could be read",
    needs=(EXCLUSIVE.name,),
)
SYNC = Probe(
    "sync file and folder",
    "what is committed survives a power cut, as far as the disk keeps its word",
    "a power cut may take commits that were told to be done",
    needs=(EXCLUSIVE.name,),
    fatal=False,
)


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts."""

    point: Path
    kind: str


def mount_of(path: Path, mounts: str) -> Mount | None:
    """The mount that `path`, absolute and resolved, lies on; of several on one point the last counts."""
    found = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[1]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= len(found.point.parts)):
            found = Mount(point, fields[2])
    return found


def kind_of_filesystem(mount: Mount | None) -> Finding:
    """What this kind of filesystem means for a run."""
    name = "what kind of filesystem"
    if mount is None:
        return Finding(name, Status.OK, "unknown: see to it that other machines can reach it too")
    seen = f"{mount.kind} at {mount.point}"
    if mount.kind in BUCKETS:
        return Finding(name, Status.WARNING, "a bucket behind a filesystem: name the bucket itself as s3://", seen)
    if mount.kind in NETWORK:
        means = "shared: any machine that mounts it can go on; its listings may lag, which claims and fences allow for"
        return Finding(name, Status.OK, means, seen)
    if mount.kind in VOLATILE:
        return Finding(name, Status.WARNING, "in memory: the run is gone when this machine or container stops", seen)
    if mount.kind == "overlay":
        return Finding(name, Status.WARNING, "a container's own layer: the run is gone with the container", seen)
    return Finding(name, Status.OK, "local: the run can go on on this machine only", seen)


def free_space(root: Path) -> Finding:
    free = shutil.disk_usage(existing(root)).free
    seen = f"{free / 1e9:.1f} GB free"
    if free < LITTLE_BYTES:
        return Finding("free space", Status.WARNING, "little: a full disk ends attempts with exit code 69", seen)
    return Finding("free space", Status.OK, "each commit takes about 12 bytes for each trained parameter", seen)


def existing(path: Path) -> Path:
    """The nearest folder above `path`, or itself, that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def probe_filesystem(root: Path, folder: str) -> Iterator[Finding]:
    """Everything happens in `root`/`folder`, which is made here, and gone afterwards."""
    resolved = existing(root).resolve()
    with suppress(OSError):
        yield kind_of_filesystem(mount_of(resolved, MOUNTS.read_text(encoding="utf-8", errors="replace")))
    yield free_space(root)
    place = root / folder
    one, two = place / secrets.token_hex(4), place / secrets.token_hex(4)
    lost: set[str] = set()
    try:
        for probe, work in ((EXCLUSIVE, _exclusive), (LINK, _link), (RENAME, _rename), (SYNC, _sync)):
            if lost.intersection(probe.needs):
                yield Finding(probe.name, Status.NOT_TRIED, f"needs {probe.needs[0]}")
                continue
            finding = _tried(probe, lambda work=work: work(one, two), place)  # type: ignore[misc]
            if finding.status != Status.OK:
                lost.add(probe.name)
            yield finding
    finally:
        for path in (one, two):
            with suppress(OSError):
                path.unlink()
        with suppress(OSError):
            place.rmdir()


def _tried(probe: Probe, work: Callable[[], None], place: Path) -> Finding:
    try:
        work()
    except Lacking as error:
        return probe.lacking(error)
    except OSError as error:
        found = disk_error(error, place)
        return probe.lacking(found if isinstance(found, HardwareError) else Lacking(str(found)))
    return probe.ok()


def _exclusive(one: Path, two: Path) -> None:
    make_folder(one.parent)
    _create(one)
    with suppress(FileExistsError):
        _create(one)
        raise Lacking("a second exclusive create of one name was not refused")


def _link(one: Path, two: Path) -> None:
    two.hardlink_to(one)
    with suppress(FileExistsError):
        two.hardlink_to(one)
        raise Lacking("a second link of one name was not refused")
    if not two.samefile(one):
        raise Lacking("a linked file is another file")


def _rename(one: Path, two: Path) -> None:
    two.unlink(missing_ok=True)
    two.write_bytes(b"old")
    one.write_bytes(b"new")
    one.replace(two)
    if two.read_bytes() != b"new" or one.exists():
        raise Lacking("a rename over another file did not replace it")


def _sync(one: Path, two: Path) -> None:
    with two.open("r+b") as file:
        os.fsync(file.fileno())
    sync_folder(two.parent)


def _create(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
