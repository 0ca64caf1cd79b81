"""Where a machine's state lies, and what the machine is called."""

import os
import socket
from pathlib import Path

import pytest

from job import machine
from job.errors import HardwareError
from job.machine import home, node_name

TOLD = ("SFT_JOB_HOME", "SLURM_JOB_ID", "SLURM_TMPDIR", "TMPDIR", "SLURMD_NODENAME", "XDG_CACHE_HOME")


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "shared-home"))


@pytest.fixture
def in_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In a job of Slurm's; returns what stands in for /tmp, where all users write."""
    common = tmp_path / "tmp"
    common.mkdir()
    common.chmod(0o1777)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(machine, "SHARED_TEMPORARY", str(common))
    return common


def test_the_home_is_chosen_or_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert home() == tmp_path / "shared-home" / ".cache" / "sft-job"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "sft-job"
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "chosen"))
    assert home() == tmp_path / "chosen"


def test_in_a_slurm_job_the_home_is_on_the_node_unless_it_was_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_slurm: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == in_slurm / f"sft-job-{os.getuid()}"
    for name in ("TMPDIR", "SLURM_TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
        assert home() == tmp_path / name / "sft-job"
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "chosen"))
    assert home() == tmp_path / "chosen"


def test_a_temporary_folder_of_the_login_node_that_is_not_here_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_slurm: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "only-on-the-login-node"))
    assert home() == in_slurm / f"sft-job-{os.getuid()}"


def test_where_others_write_too_the_folder_is_this_users_alone(monkeypatch: pytest.MonkeyPatch, in_slurm: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(in_slurm))
    found = home()
    assert found == in_slurm / f"sft-job-{os.getuid()}" == home()
    assert found.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["file", "link", "anothers"])
def test_a_folder_that_somebody_else_put_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_slurm: Path, kind: str
) -> None:
    there = in_slurm / f"sft-job-{os.getuid()}"
    if kind == "file":
        there.write_text("")
    elif kind == "link":
        there.symlink_to(tmp_path)
    else:
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        there.mkdir()
        os.chown(there, 12345, 12345)
    with pytest.raises(HardwareError, match=r"is not this user's own folder; set SFT_JOB_HOME"):
        home()


def test_a_node_is_called_as_slurm_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert node_name() == socket.gethostname()
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    assert node_name() == "n2"
