"""What verify says: everything that is damaged in one line, whether a run could go on, and all of it for programs."""

import json
from pathlib import Path

import pytest

from job.storage.attempts import write_end
from job.storage.checkpoints import read_commit
from job.storage.memory import MemoryStore
from job.storage.records import RESULT, RUN
from job.storage.stock import take_stock
from job.verify import report, verdict
from tests.committing import flip, owner
from tests.verifying import KEYS, checked, make_run


def test_the_report_holds_everything(tmp_path: Path) -> None:
    run = make_run(MemoryStore(), tmp_path)
    flip(run, read_commit(run, KEYS[1]))
    found = list(checked(run, tmp_path).values())
    made = json.loads(json.dumps(report(run.uri, False, take_stock(run), found, verdict(run.uri, found))))
    assert made["ok"] is False and KEYS[1] in made["verdict"]
    assert [one["ok"] for one in made["checked"]] == [True, True, True, False, True, True]


def test_where_no_commit_is_whole_it_says_what_is_left_to_do(tmp_path: Path) -> None:
    run = make_run(MemoryStore(), tmp_path)
    for key in KEYS:
        flip(run, read_commit(run, key))
    error = str(verdict(run.uri, list(checked(run, tmp_path).values())))
    assert all(key in error for key in KEYS) and error.endswith("or begin anew in another run folder")


@pytest.mark.parametrize("content", [None, b"{"])
def test_without_run_json_it_says_what_to_bring_back_and_which_commit_waits_for_it(
    tmp_path: Path, content: bytes | None
) -> None:
    run = make_run(MemoryStore(), tmp_path)
    flip(run, read_commit(run, KEYS[2]))
    run.delete([RUN])
    if content is not None:
        run.put(RUN, content)
    error = str(verdict(run.uri, list(checked(run, tmp_path).values())))
    assert "Restore run.json from a backup" in error and "\n" not in error
    assert error.endswith(f"the newest commit that is whole is {KEYS[1]}")
    assert take_stock(run).unrecorded == [], "the rows belong to the run, whoever can say so"


def test_a_run_that_was_finished_and_lost_its_result_is_damaged_and_can_make_it_again(tmp_path: Path) -> None:
    run = make_run(MemoryStore(), tmp_path)
    write_end(run, owner(), 0, "done", 3)
    assert verdict(run.uri, list(checked(run, tmp_path).values())) is None
    run.delete([RESULT])
    error = str(verdict(run.uri, list(checked(run, tmp_path).values())))
    assert f"{RESULT}: is missing: attempt 1 had finished the run (attempts/0001-end.json)" in error
    assert f"{KEYS[2]}: run the same command again" in error
