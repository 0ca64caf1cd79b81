"""What verify says: everything that is damaged in one line, whether a run could go on, and all of it for programs."""

import json
from pathlib import Path

from job.storage.checkpoints import read_commit
from job.storage.memory import MemoryStore
from job.storage.records import RUN
from job.storage.stock import take_stock
from job.verify import report, verdict
from tests.committing import flip
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


def test_nobody_is_sent_to_a_commit_that_a_run_could_not_go_on_from(tmp_path: Path) -> None:
    run = make_run(MemoryStore(), tmp_path)
    run.delete([RUN])
    error = str(verdict(run.uri, list(checked(run, tmp_path).values())))
    assert RUN in error and "whole" not in error
