"""When this job ends: what it is told, else what Slurm says, else nothing."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.errors import ConfigError
from job.host import endtime
from job.host.endtime import job_seconds_left, seconds_of

NOW = 1_900_000_000.0  # 2030-03-17T17:46:40Z


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endtime.time, "time", lambda: NOW)


def squeue(folder: Path, script: str) -> dict[str, str]:
    """A stand-in for Slurm's tool, which is asked for one job and prints what it knows."""
    tool = folder / "squeue"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}


def test_nothing_is_known_outside_a_scheduler(tmp_path: Path) -> None:
    without_job = squeue(tmp_path, "echo 42 1:00:00")
    del without_job["SLURM_JOB_ID"]
    assert job_seconds_left(without_job) is None
    assert job_seconds_left({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "SFT_JOB_END_TIME": ""}) is None


@pytest.mark.parametrize(
    "told", ["1900003600", "1900003600.0", "2030-03-17T18:46:40Z", "2030-03-17T19:46:40+01:00", " 1900003600 "]
)
def test_the_end_that_is_told_is_taken_as_unix_seconds_or_iso_time(told: str) -> None:
    assert job_seconds_left({"SFT_JOB_END_TIME": told}) == 3600


@pytest.mark.parametrize("told", ["soon", "2030-03-17T18:46:40", "1h", "-5", "nan", "1e9"])
def test_a_time_that_is_none_or_names_no_zone_is_refused_with_an_example(told: str) -> None:
    with pytest.raises(ConfigError, match=r"SFT_JOB_END_TIME is .*2030-01-31T18:00:00Z"):
        job_seconds_left({"SFT_JOB_END_TIME": told})


def test_what_is_told_wins_over_slurm(tmp_path: Path) -> None:
    slurm = {**squeue(tmp_path, "echo 42 1:00"), "SLURM_JOB_END_TIME": str(NOW + 7200)}
    assert job_seconds_left({**slurm, "SFT_JOB_END_TIME": str(NOW + 10)}) == 10
    assert job_seconds_left(slurm) == 7200


def test_an_end_that_has_passed_is_told_as_it_is() -> None:
    assert job_seconds_left({"SFT_JOB_END_TIME": str(NOW - 10)}) == -10


def test_an_older_slurm_is_asked_by_its_tool(tmp_path: Path) -> None:
    assert job_seconds_left(squeue(tmp_path, '[ "$*" = "-h -j 42 -o %A %L" ] && echo "42 1-02:03:04"')) == 93784


@pytest.mark.parametrize("variable", [str(NOW - 60), "0", "", "Unknown"])
def test_a_variable_that_is_over_or_empty_is_not_believed(tmp_path: Path, variable: str) -> None:
    slurm = squeue(tmp_path, "echo 42 30:00")
    assert job_seconds_left({**slurm, "SLURM_JOB_END_TIME": variable}) == 1800


def test_of_an_array_only_the_own_job_counts(tmp_path: Path) -> None:
    assert job_seconds_left(squeue(tmp_path, "echo 40 10:00; echo 42 20:00; echo 421 30:00")) == 1200


@pytest.mark.parametrize("said", ["UNLIMITED", "NOT_SET", "INVALID", "", "N/A", "-5:00"])
def test_slurm_without_a_limit_is_no_end(tmp_path: Path, said: str) -> None:
    assert job_seconds_left(squeue(tmp_path, f"echo 42 {said}")) is None


@pytest.mark.parametrize("script", ["echo 42 10:00; exit 1", "echo slurm_load_jobs error >&2; exit 1", "kill -9 $$"])
def test_a_squeue_that_fails_says_nothing(tmp_path: Path, script: str) -> None:
    assert job_seconds_left(squeue(tmp_path, script)) is None


def test_a_squeue_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endtime, "SQUEUE_SECONDS", 0.2)
    assert job_seconds_left(squeue(tmp_path, "exec tail -f /dev/null")) is None


def test_without_squeue_nothing_is_known(tmp_path: Path) -> None:
    assert job_seconds_left({"PATH": str(tmp_path), "SLURM_JOB_ID": "42"}) is None


def test_a_squeue_that_may_not_be_run_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "squeue").mkdir()
    assert job_seconds_left({"PATH": str(tmp_path), "SLURM_JOB_ID": "42"}) is None


def slurm_wording(seconds: int) -> str:
    """As slurm prints a time: days and hours only where needed."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@given(st.integers(0, 400 * 24 * 3600))
def test_every_time_slurm_prints_is_read_back(seconds: int) -> None:
    assert seconds_of(slurm_wording(seconds)) == seconds


@given(st.text(max_size=20))
def test_whatever_else_it_prints_breaks_nothing(text: str) -> None:
    assert seconds_of(text) is None or ":" in text
