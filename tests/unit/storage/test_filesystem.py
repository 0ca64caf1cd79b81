"""What the filesystem under a run folder can do, and what its kind means for the run."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from job.storage import filesystem
from job.storage.filesystem import existing, free_space, kind_of_filesystem, mount_of, probe_filesystem
from job.storage.finding import Finding, Status

MOUNTS = """
/dev/sda1 / ext4 rw,relatime 0 0
tmpfs /dev/shm tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
bucket /home/me/my\\040bucket fuse.s3fs rw 0 0
none /home/me/scratch tmpfs rw 0 0
/dev/sdb1 /home/me/scratch xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/run", "ext4"),
        ("/dev/shm/run", "tmpfs"),
        ("/dev/shmother", "ext4"),
        ("/home/me/run", "nfs4"),
        ("/home/me/my bucket/run", "fuse.s3fs"),
        ("/home/me/scratch/run", "xfs"),
    ],
)
def test_a_path_lies_on_the_nearest_and_latest_mount_above_it(path: str, kind: str) -> None:
    found = mount_of(Path(path), MOUNTS)
    assert found is not None and found.kind == kind


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/data/run", Status.OK, "this machine only"),
        ("/home/me/run", Status.OK, "shared: any machine"),
        ("/dev/shm/run", Status.WARNING, "in memory"),
        ("/home/me/my bucket/run", Status.WARNING, "s3://"),
    ],
)
def test_the_kind_says_what_it_means_for_a_run(path: str, status: Status, words: str) -> None:
    found = kind_of_filesystem(mount_of(Path(path), MOUNTS))
    assert found.status == status and words in found.means


def test_an_ordinary_folder_passes_and_is_left_empty(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "down"
    found = by_name(root)
    assert {one.status for one in found.values() if one.name in TRIED} == {Status.OK}
    assert set(found) >= TRIED
    assert list(root.iterdir()) == []


def test_without_hard_links_no_job_can_claim_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    found = by_name(tmp_path)
    assert found[filesystem.LINK.name].status == Status.MISSING and "s3://" in found[filesystem.LINK.name].means
    assert found[filesystem.RENAME.name].status == Status.OK


def copied(self: Path, target: Path) -> None:
    self.write_bytes(target.read_bytes())


def replaced(self: Path, target: Path) -> None:
    self.unlink(missing_ok=True)
    os.link(target, self)


@pytest.mark.parametrize("link", [copied, replaced])
def test_links_that_do_not_exclude_each_other_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[[Path, Path], None]
) -> None:
    monkeypatch.setattr(Path, "hardlink_to", link)
    assert by_name(tmp_path)[filesystem.LINK.name].status == Status.MISSING


def test_a_disk_that_is_full_keeps_its_own_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filesystem, "_create", full)
    found = by_name(tmp_path)[filesystem.EXCLUSIVE.name]
    assert found.error is not None and found.error.exit_code == 69


def test_a_place_that_cannot_be_a_folder_is_missing_and_the_rest_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    found = by_name(tmp_path / "file" / "run")
    assert found[filesystem.EXCLUSIVE.name].status == Status.MISSING
    assert {found[name].status for name in TRIED - {filesystem.EXCLUSIVE.name}} == {Status.NOT_TRIED}


def test_little_free_space_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "GB free" in free_space(tmp_path / "none" / "yet").seen
    monkeypatch.setattr(filesystem, "LITTLE_BYTES", 1 << 60)
    assert free_space(tmp_path).status == Status.WARNING


def test_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(tmp_path) == tmp_path


TRIED = {probe.name for probe in (filesystem.EXCLUSIVE, filesystem.LINK, filesystem.RENAME, filesystem.SYNC)}


def by_name(root: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in probe_filesystem(root, "doctor-1")}
