"""The drill passes where runs survive, says so where one does not, and leaves nothing behind however it ends."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.drill.plan import QUICK
from job.errors import ExitCode
from job.storage.store import open_store
from tests.harness import Job, finish
from tests.servers import Bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE_SECONDS = 1200.0
HALF = len(QUICK) // 2


def drill(arguments: list[str], home: Path, code: int = 0) -> Job:
    job = Job(["drill", *arguments], home)
    assert job.ended(PATIENCE_SECONDS) == code, job.said()
    assert not (home / "runs").exists() and not list(home.glob("drill-*")), "the drill's own folder is gone"
    return job


def passed(job: Job, names: list[str]) -> dict[str, Any]:
    """Its report, which tells the truth about what was hit."""
    report: dict[str, Any] = json.loads(job.stdout())
    assert report["passed"] and report["versions"]["sft-job"] and report["host"]
    assert [facts["case"] for facts in report["experiments"]] == names
    for facts in report["experiments"]:
        assert facts["hit"] is not None and facts["lost_steps"] <= facts["bound_steps"], facts
        assert facts["codes"][-1] == 0 and facts["resume_seconds"] > 0 and facts["commits"] >= 2, facts
    assert f"all {len(names)} experiments passed" in job.said().splitlines()[-1]
    return report


def only(cases: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    names = [case.name for case in cases]
    return names, [word for name in names for word in ("--only", name)]


def test_runs_in_a_folder_survive_blows_before_and_between_steps(tmp_path: Path) -> None:
    names, chosen = only(QUICK[:HALF])
    job = drill([*chosen, "--store", str(tmp_path / "store"), "--json", "-"], tmp_path / "home")
    passed(job, names)
    assert not (tmp_path / "store").exists()


def test_runs_on_s3_survive_blows_in_everything_that_is_written(s3: Bucket, tmp_path: Path) -> None:
    names, chosen = only(QUICK[HALF:])
    passed(drill([*chosen, "--store", f"{s3.uri}/some/prefix", "--json", "-"], tmp_path / "home"), names)
    assert open_store(s3.uri).list("") == []


def when(there: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """Do `then` as soon as it is `there`."""

    def work() -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if there():
                then()
                return
            time.sleep(0.005)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_store_that_loses_an_acknowledged_commit_fails_the_drill_and_the_rest_still_passes(tmp_path: Path) -> None:
    store, report = tmp_path / "store", tmp_path / "report.json"
    record = "drill-*/after-record-KILL/commits/0001-00000016.json"
    lost = when(lambda: any(store.glob(record)), lambda: [path.unlink() for path in store.glob(record)] and None)
    arguments = ["--only", "after-record:KILL", "--only", "pull:TERM", "--store", str(store), "--json", str(report)]
    job = drill(arguments, tmp_path / "home", ExitCode.CRASHED)
    lost.join()
    last = job.said().splitlines()[-1]
    assert last.startswith("sft-job: killed by KILL in after-record: ") and "steps were lost" in last, job.said()
    assert last.endswith("the other 1 passed")
    found = json.loads(report.read_text(encoding="utf-8"))
    assert not found["passed"]
    pull, record_facts = found["experiments"]
    assert pull["passed"] and not record_facts["passed"] and record_facts["resumed_step"] == 8
    assert any("resumed from step 8" in text for text in record_facts["said"]), "what the run said is shown"


def test_a_run_that_ends_in_other_bits_fails_the_drill(tmp_path: Path) -> None:
    store = tmp_path / "store"

    def reverse() -> None:
        (chat,) = store.glob("drill-*/chat.jsonl")
        lines = chat.read_text(encoding="utf-8").splitlines(keepends=True)
        chat.with_name("other").write_text("".join(lines[::-1][1:]), encoding="utf-8")
        chat.with_name("other").replace(chat)

    changed = when(lambda: any(store.glob("drill-*/reference/final/result.json")), reverse)
    job = drill(["--only", "step:USR1", "--store", str(store)], tmp_path / "home", ExitCode.CRASHED)
    changed.join()
    last = job.said().splitlines()[-1]
    assert last.startswith("sft-job: killed by USR1 in step: ") and "not bit-identical" in last, job.said()


def begun(tmp_path: Path) -> Job:
    """A drill in the middle of an experiment."""
    job = Job(["drill", "--only", "step", "--store", str(tmp_path / "store")], tmp_path / "home")
    job.wait_for("left alone", PATIENCE_SECONDS)
    until = time.monotonic() + PATIENCE_SECONDS
    while not job.ranks():
        assert time.monotonic() < until
        time.sleep(0.05)
    return job


def test_a_drill_that_is_stopped_leaves_with_75_and_neither_process_nor_folder(tmp_path: Path) -> None:
    job = begun(tmp_path)
    os.killpg(job.process.pid, signal.SIGTERM)
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert job.said().splitlines()[-1].startswith("sft-job: stopped by SIGTERM") and "Traceback" not in job.said()
    assert not (tmp_path / "store").exists() and not list((tmp_path / "home").glob("drill-*"))


def test_a_drill_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    job = begun(tmp_path)
    job.signal(signal.SIGKILL)
    assert job.ended() == -signal.SIGKILL


def test_a_store_that_refuses_is_told_as_such_and_not_as_a_failed_run(s3: Bucket, tmp_path: Path) -> None:
    job = finish(["drill", "--quick", "--store", f"{s3.uri}-missing/x"], tmp_path / "home", code=ExitCode.STORAGE)
    assert "drill" not in job.said().splitlines()[-1].partition(":")[0] and "missing" in job.said().splitlines()[-1]
