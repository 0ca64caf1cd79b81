"""What is little or missing is told as what it means for a run, and with what helps."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from job.config import ParallelConfig
from job.doctor import disk, machine
from job.doctor.said import cannot_start
from job.errors import ConfigError, ExitCode, HardwareError, Stopped
from job.storage.finding import Finding, Status
from tests.unit.host.launchers import slurm

GB = 10**9


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (machine.memory(64 * GB, 8), Status.OK),
        (machine.memory(16 * GB, 8), Status.WARNING),
        (machine.cores(9, 8), Status.OK),
        (machine.cores(8, 8), Status.WARNING),
        (machine.open_files(1024, 4096), Status.OK),
        (machine.open_files(256, 4096), Status.WARNING),
        (machine.open_files(resource.RLIM_INFINITY, resource.RLIM_INFINITY), Status.OK),
        (machine.shared_memory(Path("/nowhere/shm"), 1), Status.WARNING),
        (machine.packages(dict.fromkeys(machine.NEEDED, "1")), Status.OK),
        (machine.packages(dict.fromkeys(machine.NEEDED[1:], "1")), Status.MISSING),
        (disk.room(Path("/d"), 500 * GB), Status.OK),
        (disk.room(Path("/d"), 5 * GB), Status.WARNING),
        (disk.room(Path("/d"), GB // 100), Status.MISSING),
    ],
)
def test_what_is_enough_and_what_is_not(finding: Finding, status: Status) -> None:
    assert finding.status == status and finding.means and finding.seen


def test_little_shared_memory_matters_to_several_ranks_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: (64 << 20, 0, 64 << 20))
    assert machine.shared_memory(tmp_path, 1).status == Status.OK
    found = machine.shared_memory(tmp_path, 2)
    assert found.status == Status.WARNING and "--shm-size" in found.means and "67.1 MB" in found.seen


def test_the_place_in_a_job_of_several_nodes_is_told_with_who_says_it() -> None:
    first = next(machine.of_machine(ParallelConfig(device="cpu"), slurm(1), never))
    assert first.means == "node 1 of 2, 1 rank on cpu each, led from gpu08:29688"
    assert first.seen == "as said by Slurm"


def test_a_leader_whose_name_leads_nowhere_is_missing() -> None:
    assert machine.leader_name("127.0.0.1").seen == "127.0.0.1"
    found = machine.leader_name("no-such-host.invalid")
    assert found.status == Status.MISSING and "set SFT_JOB_LEADER" in found.seen


@pytest.mark.parametrize(
    ("parallel", "environment", "kind"),
    [
        (ParallelConfig(device="cuda"), {"CUDA_VISIBLE_DEVICES": ""}, HardwareError),
        (ParallelConfig(device="cpu"), slurm(1, tasks="8(x2)"), ConfigError),
    ],
)
def test_what_would_end_a_run_at_its_start_ends_doctor_with_the_same_code(
    parallel: ParallelConfig, environment: dict[str, str], kind: type[Exception]
) -> None:
    found = list(machine.of_machine(parallel, environment, never))
    assert found[0].status == Status.MISSING and {one.status for one in found[1:]} <= {Status.OK, Status.WARNING}
    assert isinstance(cannot_start(found), kind)


def test_without_anything_missing_a_run_can_start() -> None:
    assert cannot_start([Finding("one", Status.OK, "good"), Finding("two", Status.WARNING, "slow")]) is None


# ---- the disk


def test_a_disk_is_measured_and_nothing_stays_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    found = list(disk.of_disk(never))
    assert [one.name for one in found] == ["SFT_JOB_HOME", "its filesystem", "writes", "a sync"]
    assert {one.status for one in found} <= {Status.OK, Status.WARNING}
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize(("name", "function"), [("writes", "_write"), ("a sync", "_sync")])
def test_a_slow_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: str) -> None:
    monkeypatch.setattr(disk, "_write", lambda *_: 50e6 if function == "_write" else 500e6)
    monkeypatch.setattr(disk, "_sync", lambda *_: 0.5 if function == "_sync" else 0.001)
    assert [one.name for one in disk.speed(tmp_path, never) if one.status == Status.WARNING] == [name]


def refusing(code: int) -> Callable[[int], None]:
    def sync(file: int) -> None:
        raise OSError(code, os.strerror(code))

    return sync


@pytest.mark.parametrize(("code", "told"), [(errno.ENOSPC, "no space left"), (errno.EIO, "cannot be written")])
def test_a_disk_that_fails_under_the_writes_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, told: str
) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path))
    monkeypatch.setattr(os, "fdatasync", refusing(code))
    last = list(disk.of_disk(never))[-1]
    assert last.status == Status.MISSING and told in last.seen
    error = cannot_start([last])
    assert error is not None and error.exit_code == ExitCode.HARDWARE
    assert list(tmp_path.iterdir()) == []


def test_a_stop_ends_the_writes(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        list(disk.speed(tmp_path, lambda: True))
