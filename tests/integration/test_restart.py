"""Ranks that crash, hang or meet a NaN begin again in place; what gets nowhere ends, and says why."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.storage.attempts import attempts
from tests.claiming import wait_until
from tests.harness import Job
from tests.tiny_runs import TinyRuns, assert_same

pytestmark = pytest.mark.slow

NAN_ONCE = """
import importlib.abc, importlib.util, os, sys
from pathlib import Path

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "job.training.loss":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            true, calls = module.summed_loss, []
            def summed_loss(*arguments):
                calls.append(1)
                left = Path(os.environ["NAN_LEFT"])
                if len(calls) == int(os.environ["NAN_AT"]) and (times := int(left.read_text())):
                    left.write_text(str(times - 1))
                    return true(*arguments) * float("nan")
                return true(*arguments)
            module.summed_loss = summed_loss
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def kill_a_rank(job: Job, which: int = 0) -> None:
    os.kill(job.ranks()[which], signal.SIGKILL)


def test_one_of_two_ranks_is_killed_and_the_attempt_goes_on_to_the_same_bits(
    in_folder: TinyRuns, tmp_path: Path
) -> None:
    two = {"parallel__nproc_per_node": 2, "train__max_steps": 60}
    in_folder.finish("alone", **two)
    job = in_folder.job("killed", **two)
    job.wait_for_commit(20)
    kill_a_rank(job, 1)
    assert job.ended() == ExitCode.DONE, job.said()
    assert re.search(r"rank 1 was ended by SIGKILL.*begin again in place", job.said())
    assert [owner.attempt for owner in attempts(in_folder.store("killed"))] == [1]
    assert_same(in_folder, "alone", "killed", tmp_path)


def test_ranks_that_hang_show_their_stacks_and_begin_again(in_folder: TinyRuns, tmp_path: Path) -> None:
    two = {"parallel__nproc_per_node": 2, "train__max_steps": 60, "hang_after": "6s"}
    in_folder.finish("alone", **two)
    job = in_folder.job("hung", **two)
    job.wait_for_commit(20)
    os.kill(job.ranks()[1], signal.SIGSTOP)
    assert job.ended() == ExitCode.DONE, job.said()
    said = job.said()
    assert re.search(r"no sign of life from the ranks for \d+ s; .*begin again in place", said)
    stored = in_folder.store("hung").get("attempts/0001-stacks.txt").decode()
    for text in (said, stored):
        assert "train_as_told" in text and re.search(r"rank 1 \(pid \d+, stopped", text) and "does not answer" in text
    assert_same(in_folder, "alone", "hung", tmp_path)


def test_an_accident_of_the_arithmetic_is_replayed_and_leaves_no_trace(in_folder: TinyRuns, tmp_path: Path) -> None:
    in_folder.finish("alone", train__max_steps=40)
    job = with_nan(in_folder, tmp_path, "accident", times=1)
    assert job.ended() == ExitCode.DONE, job.said()
    assert re.search(r"step 25 is not finite \(rows \[\d+,.*begin again in place", job.said())
    assert_same(in_folder, "alone", "accident", tmp_path)


def test_a_step_that_is_not_finite_twice_ends_the_run_with_65_and_names_its_rows(
    in_folder: TinyRuns, tmp_path: Path
) -> None:
    job = with_nan(in_folder, tmp_path, "diverged", times=9, at=5)
    assert job.ended() == ExitCode.DATA, job.said()
    last = job.said().splitlines()[-1]
    assert "step 5 is not finite (rows [" in last and "a replay from the start gave the same" in last
    assert job.said().count("begin again in place") == 1


def with_nan(runs: TinyRuns, tmp_path: Path, name: str, times: int, at: int = 25 + 1) -> Job:
    """The loss of one micro-batch is NaN, `times` times; at step 20 an evaluation of one micro-batch comes between."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NAN_ONCE)
    (tmp_path / "left").write_text(str(times))
    extra = {"PYTHONPATH": str(tmp_path / "site"), "NAN_LEFT": str(tmp_path / "left"), "NAN_AT": str(at)}
    fields = {"train__max_steps": 40, "train__token_budget": 4096}
    return Job(runs.arguments(name, fields), runs.home, {**runs.extra, **extra})


def test_attempts_that_vanish_or_crash_without_a_new_commit_end_with_73(in_folder: TinyRuns) -> None:
    never = {"checkpoint__every": "15m", "train__max_steps": 3000}
    store = in_folder.store("looping")
    for number in (1, 2):
        vanished = in_folder.job("looping", **never)
        vanished.wait_for(r"step 2/3000")
        wait_until(lambda n=number: json.loads(store.get(f"attempts/{n:04d}-beat.json"))["stepped"])  # type: ignore[misc]
        vanished.signal(signal.SIGKILL)
        assert vanished.ended() == -signal.SIGKILL
    crashed = in_folder.job("looping", **never)
    for launch in (1, 2, 3):
        crashed.wait_for(rf"(?s)(training 3,000 steps.*?){{{launch}}}step 2/3000")
        kill_a_rank(crashed)
    assert crashed.ended() == ExitCode.CRASHED, crashed.said()
    assert "2 restarts from the start got no further" in crashed.said().splitlines()[-1]
    end = json.loads(store.get("attempts/0003-end.json"))
    assert end["stepped"] and end["seconds"] > 0

    refused = in_folder.finish("looping", code=ExitCode.NO_PROGRESS, **never)
    assert "attempts 1, 2 and 3 of" in refused.said().splitlines()[-1]
    assert len(attempts(store)) == 3
    insisted = Job([*in_folder.arguments("looping", never), "--try-again"], in_folder.home)
    insisted.wait_for(r"step 2/3000")
    insisted.signal(signal.SIGTERM)
    assert insisted.ended() == ExitCode.STOPPED, insisted.said()


def test_a_crash_before_the_first_step_leaves_at_once(in_folder: TinyRuns) -> None:
    job = in_folder.job("early", train__max_steps=3000)
    job.wait_for("1 rank|reading  64 rows")
    job.wait_for("attempt 1: a fresh start")
    kill_when_there(job)
    assert job.ended() == ExitCode.CRASHED, job.said()
    assert "begin again" not in job.said()


def kill_when_there(job: Job) -> None:
    for _ in range(10_000):
        if ranks := job.ranks():
            return os.kill(ranks[0], signal.SIGKILL)
    raise AssertionError("no rank was started")
