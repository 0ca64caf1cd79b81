"""What a rank that failed is shown to have died of: the cause, without what its libraries said before."""

from pathlib import Path

import pytest

from job.aftermath import KEPT_BYTES, aftermath
from job.errors import ConfigError, NodeLost, RankCrashed, RankHung
from job.rundir import RunDir

NOISE = """/site/torch/x.py:1: FutureWarning: use another
  warnings.warn(
Warning: The following arguments do not match the ones in the `trainer_state.json`:
	logging_steps: 500 (from args) != 1 (from trainer_state.json)
	save_steps: 500 (from args) != 1 (from trainer_state.json)

Loading weights:   0%|          | 0/20 [00:00<?, ?it/s]
Loading weights: 100%|####| 20/20 [00:00<00:00, 19it/s]
"""
TRACE = """Traceback (most recent call last):
  File "job/train.py", line 1, in train
    raise ValueError("no such thing")
ValueError: no such thing
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run").make()


def test_the_last_traceback_is_shown_and_all_of_the_log_is_kept(run: RunDir) -> None:
    log = TRACE + NOISE + TRACE
    run.log("rank-0").write_text(log, encoding="utf-8")
    left = aftermath(run, RankCrashed("ValueError: no such thing"), "")
    assert left.shown == [f"rank-0| {line}" for line in TRACE.splitlines()]
    assert (left.name, left.content.decode()) == ("rank-0.log", log)


def test_the_log_is_that_of_the_rank_that_failed_first(run: RunDir) -> None:
    run.log("rank-0").write_text(TRACE, encoding="utf-8")
    run.log("rank-12").write_text(NOISE + "Fatal: lost\n", encoding="utf-8")
    left = aftermath(run, RankCrashed("rank 12 was ended by SIGSEGV; see its log"), "")
    assert left.name == "rank-12.log"
    assert left.shown == ["rank-12| Fatal: lost"]


def test_who_was_killed_said_nothing_of_it(run: RunDir) -> None:
    run.log("rank-1").write_text(NOISE, encoding="utf-8")
    left = aftermath(run, RankCrashed("rank 1 was ended by SIGKILL; the kernel may have run out of memory"), "")
    assert left.shown == [] and left.content.decode() == NOISE


def test_a_log_that_grew_without_end_keeps_its_end(run: RunDir) -> None:
    run.log("rank-0").write_bytes(b"x" * (KEPT_BYTES + 5) + b"\nend")
    assert len(left := aftermath(run, RankCrashed("boom"), "").content) == KEPT_BYTES and left.endswith(b"end")


def test_of_ranks_that_hung_the_stacks_are_shown_and_of_a_wrong_config_nothing(run: RunDir) -> None:
    run.log("rank-0").write_text(TRACE, encoding="utf-8")
    hung = aftermath(run, RankHung("no sign of life"), "one\ntwo")
    assert (hung.shown, hung.name, hung.content) == (["one", "two"], "stacks.txt", b"one\ntwo")
    for error in (ConfigError("lora.r"), RankHung("no stacks")):
        left = aftermath(run, error, "")
        assert (left.shown, left.name) == ([], "")


def test_a_rank_that_left_no_log_is_no_other_mistake(run: RunDir) -> None:
    assert aftermath(run, RankCrashed("boom"), "").name == ""


def test_of_another_nodes_rank_nothing_here_is_shown_and_of_this_nodes_its_log(run: RunDir) -> None:
    run.log("rank-0").write_text(TRACE, encoding="utf-8")
    assert aftermath(run, RankCrashed("node 1, rank 2: ValueError"), "").name == ""
    assert aftermath(run, RankCrashed("node 0, rank 0: ValueError"), "").name == "rank-0.log"


def test_of_a_lost_node_the_echoes_are_not_shown(run: RunDir) -> None:
    run.log("rank-0").write_text(TRACE, encoding="utf-8")
    left = aftermath(run, NodeLost("node 1 was lost (the connection was closed)"), "")
    assert (left.shown, left.name) == ([], "")
