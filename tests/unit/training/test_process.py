"""Whatever ends a child process, its exit code and its cause reach the supervisor."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import DataError, ExitCode
from job.rundir import RunDir
from job.training.process import leave


def fill_the_disk() -> None:
    Path("/dev/full").write_text("anything", encoding="utf-8")


def find_bad_data() -> None:
    raise DataError("row 3 is bad")


def divide() -> None:
    raise ZeroDivisionError("by nothing\nat all")


@pytest.mark.parametrize(
    ("story", "code", "cause"),
    [
        (find_bad_data, ExitCode.DATA, "row 3 is bad"),
        (divide, ExitCode.CRASHED, "ZeroDivisionError: by nothing"),
        (fill_the_disk, ExitCode.HARDWARE, "no space left on the filesystem of {run}; free some, or use another"),
    ],
)
def test_the_cause_is_one_line_with_its_code(
    tmp_path: Path, story: Callable[[], None], code: ExitCode, cause: str
) -> None:
    run = RunDir(tmp_path)
    assert leave(run, 2, story) == code
    assert run.read_error(2) == (code, cause.format(run=run.path))


def test_a_disk_that_takes_no_cause_still_leaves_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert leave(RunDir(tmp_path), 0, find_bad_data) == ExitCode.DATA
    assert leave(RunDir(tmp_path), 0, fill_the_disk) == ExitCode.HARDWARE


def test_a_story_that_ends_well_leaves_no_cause(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert leave(run, 0, lambda: None) == ExitCode.DONE and run.read_error(0) is None
