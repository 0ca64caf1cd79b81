"""Time limits and preemption: the job commits, comes back by itself, and ends in the tensors of a run left alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.alone import Alone
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import desk_on, tiny_runs
from tests.slurm.submitting import Batch, Desk
from tests.tiny_runs import TinyRuns

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]

WHOLE_NODE = "--gpus-per-node=2"  # who pushes it out hits nobody else


@pytest.fixture(scope="module", autouse=True)
def limited(cluster: Cluster, inputs: Path) -> Iterator[tuple[TinyRuns, dict[str, Batch]]]:
    """Two jobs whose two minutes pass while the other tests go on: one gets USR1, one nothing that it would hear."""
    with desk_on(cluster) as desk:
        runs = tiny_runs(desk.folder, inputs)
        desk.slow()
        jobs = {}
        for name, signal, grace in (("USR1", "B:USR1@30", "5"), ("none", "B:URG@30", "50")):
            options = [WHOLE_NODE, "--time=2", f"--signal={signal}"]
            jobs[name] = desk.sbatch(runs.arguments(name, {})[1:], *options, SFT_JOB_GRACE=grace)
        yield runs, jobs


@pytest.fixture(params=["", "preempt_send_user_signal"], ids=["TERM", "USR1"])
def preempting(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Which signal a site sends when the time of grace begins: TERM to the steps, or the user's own to the script."""
    cluster.reconfigure(SlurmctldParameters=request.param)
    yield "USR1" if request.param else "TERM"
    cluster.reconfigure()


def test_a_preempted_run_commits_in_its_time_of_grace_and_comes_back(
    desk: Desk, runs: TinyRuns, alone: Alone, preempting: str
) -> None:
    desk.slow()
    job = desk.sbatch(runs.arguments("run", {})[1:], WHOLE_NODE)
    job.wait_for_commit(50)
    urgent = desk.push_out(job)
    job.wait_for(f"SIG{preempting}: stopping")
    said = job.finished()
    assert urgent.ended() == ("COMPLETED", 0)
    assert "exit 75 (stopped): requeued" in job.decisions(), said
    assert job.restarts() == 1 and resumed(said) > 50, said
    alone.assert_equals(runs.store("run"))


def test_a_run_preempted_without_grace_goes_on_from_its_last_periodic_commit(
    desk: Desk, runs: TinyRuns, alone: Alone
) -> None:
    desk.slow(seconds_per_step=600)  # it cannot commit another on its way out
    job = desk.sbatch(runs.arguments("run", {})[1:], WHOLE_NODE, "--partition=abrupt")
    job.wait_for_commit(50)
    assert desk.push_out(job).ended() == ("COMPLETED", 0)
    said = job.finished()
    assert job.restarts() == 1 and resumed(said) == 50, said
    alone.assert_equals(runs.store("run"))


def resumed(said: str) -> int:
    """The step that the second attempt went on from."""
    found = re.search(r"attempt 2: resumed from step (\d+) ", said)
    assert found, said
    return int(found[1])


def test_a_run_longer_than_its_time_limit_commits_at_its_signal_is_queued_again_and_ends_as_if_left_alone(
    limited: tuple[TinyRuns, dict[str, Batch]], alone: Alone
) -> None:
    runs, jobs = limited
    said = jobs["USR1"].finished()
    assert "SIGUSR1: stopping" in said and "exit 75 (stopped): requeued" in jobs["USR1"].decisions(), said
    assert jobs["USR1"].restarts() >= 1
    alone.assert_equals(runs.store("USR1"))


def test_a_run_that_is_not_told_of_its_time_limit_stops_by_itself_before_it(
    limited: tuple[TinyRuns, dict[str, Batch]], alone: Alone
) -> None:
    runs, jobs = limited
    said = jobs["none"].finished()
    assert "SIG" not in said and "exit 75 (stopped): requeued" in jobs["none"].decisions(), said
    assert jobs["none"].restarts() >= 1
    alone.assert_equals(runs.store("none"))
