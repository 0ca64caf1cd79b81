"""One folder per attempt: nobody else's while its supervisor lives, nobody's any more when that is gone."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from job.errors import ExitCode, HardwareError
from job.rundir import RunDir
from job.workspace import LOCK, workspace

ROOT = Path(__file__).parents[2]
HOLD = "import sys; from job.workspace import workspace\nwith workspace() as run: print(run.path, flush=True); input()"

KILLED = """if event == sys.argv[1] and (event != "open" or str(about[0]).endswith("/lock")):
        times.append(event)
        if len(times) == int(sys.argv[2]): os.kill(os.getpid(), 9)"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "runs"


def folders(place: Path) -> set[Path]:
    return {entry for entry in place.iterdir() if entry.is_dir()}


def holder() -> tuple["subprocess.Popen[str]", Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_is_there_and_empty_in_the_block_and_gone_behind_it(place: Path) -> None:
    with workspace() as run:
        assert run.snapshots.is_dir() and run.whole_snapshots() == []
        (run.path / "file").write_text("x")
        assert folders(place) == {run.path}
    assert folders(place) == set()


def test_it_goes_when_the_block_ends_with_an_error(place: Path) -> None:
    with pytest.raises(KeyError), workspace():
        raise KeyError
    assert folders(place) == set()


def test_two_at_once_leave_each_other_alone(place: Path) -> None:
    process, other = holder()
    try:
        with workspace() as run:
            assert folders(place) == {run.path, other}
        assert other.is_dir() and (other / LOCK).exists()
    finally:
        process.communicate("\n", timeout=60)
    assert folders(place) == set()


def test_what_a_killed_supervisor_left_is_deleted(place: Path) -> None:
    process, other = holder()
    (other / "snapshots" / "step-00000010").mkdir()
    process.kill()
    process.wait()
    assert other.is_dir()
    with workspace() as run:
        assert folders(place) == {run.path}


@pytest.mark.parametrize(("event", "which"), [("open", 2), ("fcntl.flock", 2), ("os.rename", 1)])
def test_what_was_killed_while_its_folder_was_made_is_deleted(place: Path, event: str, which: int) -> None:
    program = f"import os, sys\ntimes = []\ndef hook(event, about):\n    {KILLED}\nsys.addaudithook(hook)\n{HOLD}"
    command = [sys.executable, "-c", program, event, str(which)]
    killed = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert killed.returncode == -9, killed.stderr
    assert len(folders(place)) == 1
    other = place / ".another-machine-0123"
    other.mkdir()
    with workspace() as run:
        assert folders(place) == {run.path, other}


def test_a_folder_that_is_made_but_not_locked_yet_is_not_taken_for_an_orphan(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second supervisor starts at the worst moment of the first one's start."""
    made = RunDir.make
    second: list[threading.Thread] = []

    def start_another() -> None:
        with workspace() as run:
            assert run.snapshots.is_dir()

    def make(run: RunDir) -> RunDir:
        made(run)
        if not second:
            second.append(threading.Thread(target=start_another))
            second[0].start()
            second[0].join(timeout=0.5)
        return run

    monkeypatch.setattr(RunDir, "make", make)
    with workspace() as run:
        second[0].join()
        assert folders(place) == {run.path} and run.snapshots.is_dir()
    assert folders(place) == set()


def test_a_place_that_cannot_be_written_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "file"))
    with pytest.raises(HardwareError, match="SFT_JOB_HOME") as caught, workspace():
        raise AssertionError("it did not start")
    assert caught.value.exit_code == ExitCode.HARDWARE and "\n" not in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)


def test_where_locks_do_not_work_nothing_is_taken_for_an_orphan(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    (place / "anothers").mkdir(parents=True)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with workspace() as run:
        assert folders(place) == {run.path, place / "anothers"}
