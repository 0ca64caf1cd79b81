"""The demo shows what it promises, goes on where it was cut short, and leaves no process behind however it ends."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from job.config import load_config
from job.errors import ExitCode
from job.storage.checkpoints import commit_keys
from job.storage.store import open_store
from job.tiny import ANSWER, QUESTION
from tests.harness import Job, finish

ANSWERED = f"{ANSWER}\n"


def ends(run: Path) -> list[int]:
    """The exit codes of a run's attempts, oldest first."""
    return [json.loads(path.read_text())["code"] for path in sorted(run.glob("attempts/*-end.json"))]


@pytest.mark.slow
def test_a_demo_is_preempted_resumed_and_answers_and_a_second_one_makes_a_run_beside_it(tmp_path: Path) -> None:
    place = tmp_path / "a place with spaces"
    job = finish(["demo", str(place)], tmp_path / "home")
    assert job.stdout() == ANSWERED
    run = place / "run"
    assert ends(run) == [ExitCode.STOPPED, ExitCode.DONE]
    said = job.said()
    assert "SIGTERM: stopping at the next step" in said and "attempt 2: resumed from step" in said
    assert said.count("Traceback") == 0 and "Warning" not in said
    result = json.loads((run / "final" / "result.json").read_text())
    assert result["step"] == 120 and f"{run}/{result['folder']}" in said
    resumed = re.search(r"attempt 2: resumed from step (\d+)", said)
    assert resumed is not None and 40 <= int(resumed[1]) < 120
    assert load_config(place / "run.yaml", []).run == str(run)
    assert not list(place.glob(".*")), "nothing half-made is left"

    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    again = finish(["demo", str(place)], tmp_path / "home")
    assert again.stdout() == ANSWERED and ends(place / "run-2")[-1] == ExitCode.DONE
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_no_process_and_goes_on_the_next_time(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    killed = Job(["demo", str(place)], tmp_path / "home")
    killed.wait_for_commit(20)
    assert killed.ranks()
    killed.signal(signal.SIGKILL)
    assert killed.ended() == -signal.SIGKILL
    assert commit_keys(open_store(str(place / "run")))

    stopped = Job(["demo", str(place)], tmp_path / "home")
    stopped.wait_for(r"attempt 2: resumed from step")
    stopped.signal(signal.SIGINT)
    assert stopped.ended() == ExitCode.STOPPED, stopped.said()
    assert stopped.said().splitlines()[-1] == ("sft-job: stopped by SIGINT; the same command again goes on from here")
    last = finish(["demo", str(place)], tmp_path / "home")
    assert last.stdout() == ANSWERED and ends(place / "run")[-1] == ExitCode.DONE


@pytest.mark.slow
@pytest.mark.parametrize("moment", [r"A tiny model", r"sft-job run", r"training 120 steps"])
def test_ctrl_c_at_any_moment_ends_all_of_it_with_75_and_no_traceback(tmp_path: Path, moment: str) -> None:
    job = Job(["demo", str(tmp_path / "demo")], tmp_path / "home")
    job.wait_for(moment)
    os.killpg(job.process.pid, signal.SIGINT)
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert "Traceback" not in job.said()
    assert job.said().splitlines()[-1].startswith("sft-job: stopped by SIGINT")


@pytest.mark.slow
def test_a_wrong_answer_is_said_and_is_a_failure(tmp_path: Path) -> None:
    place = tmp_path / "demo"
    job = Job(["demo", str(place)], tmp_path / "home")
    job.wait_for("sft-job run")
    chat = place / "chat.jsonl"
    chat.write_text(chat.read_text(encoding="utf-8").replace(ANSWER, "你好"), encoding="utf-8")
    assert job.ended() == ExitCode.CRASHED, job.said()
    last = job.said().splitlines()[-1]
    assert ANSWER in last and "taught" in last and job.stdout().strip() != ANSWER and QUESTION in job.said()


@pytest.mark.parametrize("held", ["a file of somebody's", "somebody's run.yaml", "the place is a file"])
def test_a_folder_that_is_something_else_is_refused_in_one_line_and_left_as_it_is(tmp_path: Path, held: str) -> None:
    place = tmp_path / "place"
    if held == "the place is a file":
        path = place
    else:
        path = place / ("run.yaml" if "yaml" in held else "thesis.txt")
        place.mkdir()
    path.write_text("run: mine\n")
    job = finish(["demo", str(place)], tmp_path / "home", code=ExitCode.CONFIG)
    assert len(job.said().splitlines()) == 1 and "sft-job demo FOLDER" in job.said()
    assert path.read_text() == "run: mine\n"
    assert [entry for entry in tmp_path.rglob("*") if entry.is_file() and entry != job.log] == [path]


def test_without_a_folder_it_is_made_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = Job(["demo"], tmp_path / "home")
    job.wait_for("A tiny model")
    job.signal(signal.SIGTERM)
    assert job.ended() == ExitCode.STOPPED
    assert load_config(tmp_path / "sft-job-demo" / "run.yaml", []).run == str(tmp_path / "sft-job-demo" / "run")
