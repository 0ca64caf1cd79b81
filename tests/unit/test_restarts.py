"""Which failures of the ranks are worth another start in place, and how often."""

import pytest

from job.errors import ConfigError, DataError, JobError, NodeLost, NotFinite, OutOfMemory, RankCrashed, RankHung
from job.restarts import Restarts


@pytest.mark.parametrize("error", [ConfigError("c"), DataError("d"), OutOfMemory("m")])
def test_what_would_fail_again_is_not_started_again(error: JobError) -> None:
    with pytest.raises(type(error)):
        Restarts().refuse(error, None, stepped=True)


def test_a_crash_before_the_first_step_ends_the_attempt_but_a_hang_does_not() -> None:
    with pytest.raises(RankCrashed):
        Restarts().refuse(RankCrashed("x"), None, stepped=False)
    Restarts().refuse(RankHung("x"), None, stepped=False)


def test_two_restarts_without_a_new_commit_and_no_third() -> None:
    restarts = Restarts()
    for _ in range(2):
        restarts.refuse(RankCrashed("boom"), "commits/0001-00000010.json", stepped=True)
    with pytest.raises(RankCrashed, match=r"boom; 2 restarts from commits/0001-00000010\.json got no further"):
        restarts.refuse(RankCrashed("boom"), "commits/0001-00000010.json", stepped=True)


def test_a_new_commit_begins_the_count_anew() -> None:
    restarts = Restarts()
    for number in range(20):
        restarts.refuse(RankCrashed("boom"), f"commits/0001-{number // 2:08d}.json", stepped=True)


def test_the_same_step_may_be_not_finite_once() -> None:
    restarts = Restarts()
    restarts.refuse(NotFinite("step 7"), "a", stepped=True)
    restarts.refuse(NotFinite("step 9"), "b", stepped=True)
    with pytest.raises(NotFinite, match="step 7; a replay from b gave the same"):
        restarts.refuse(NotFinite("step 7"), "b", stepped=True)


def test_ever_other_steps_that_are_not_finite_end_too() -> None:
    restarts = Restarts()
    for step in (1, 2):
        restarts.refuse(NotFinite(f"step {step}"), "a", stepped=True)
    with pytest.raises(NotFinite, match="got no further"):
        restarts.refuse(NotFinite("step 3"), "a", stepped=True)


def test_a_lost_node_is_waited_for_whenever_that_is_but_not_for_ever() -> None:
    restarts = Restarts()
    for _ in range(5):
        restarts.refuse(NodeLost("node 1 was lost"), None, stepped=False)
    restarts.refuse(RankCrashed("boom"), None, stepped=True)
    with pytest.raises(NodeLost, match="node 1 was lost, the 6th time since the start"):
        restarts.refuse(NodeLost("node 1 was lost"), None, stepped=True)


def test_a_new_commit_begins_the_count_of_losses_anew() -> None:
    restarts = Restarts()
    for number in range(20):
        restarts.refuse(NodeLost("node 1 was lost"), f"commits/0001-{number // 5:08d}.json", stepped=True)
