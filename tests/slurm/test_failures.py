"""Nodes and daemons that die, jobs that are cancelled, doubled or wrong: commits stand, nobody else is disturbed."""

import re

import pytest

from job.errors import ExitCode
from job.storage.attempts import attempts
from job.storage.checkpoints import commit_keys, read_commit, step_of
from tests.slurm import nodes
from tests.slurm.alone import Alone
from tests.slurm.cluster import Cluster
from tests.slurm.submitting import Desk
from tests.tiny_runs import TinyRuns

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]


def test_a_job_of_two_nodes_whose_first_node_dies_goes_on_elsewhere_and_ends_as_if_left_alone(
    desk: Desk, runs: TinyRuns, cluster: Cluster, two_alone: Alone
) -> None:
    desk.slow()
    job = desk.sbatch(runs.arguments("run", {})[1:], "--nodes=2")
    job.wait_for_commit(50)
    lost = job.nodes()[0]
    cluster.kill_node(lost)
    said = job.finished()
    assert job.restarts() == 1 and lost not in job.nodes()
    assert "attempt 2: resumed from step" in said, said
    two_alone.assert_equals(runs.store("run"))


@pytest.mark.skipif(not nodes.isolated(), reason="needs namespaces: a node must not see another's processes")
def test_what_a_dead_slurmd_leaves_running_is_fenced_and_nothing_of_it_counts(
    desk: Desk, runs: TinyRuns, cluster: Cluster, alone: Alone
) -> None:
    pace = desk.slow()
    job = desk.sbatch(runs.arguments("run", {})[1:])
    job.wait_for_commit(50)
    [lost], zombies = job.nodes(), set(job.ranks())
    cluster.kill_daemon(lost)
    job.until(lambda: zombies < set(job.ranks()), "another life computes beside what is left of the first")
    pace.as_fast_as_it_can()
    said = job.finished()
    assert job.restarts() == 1 and lost not in job.nodes()
    cluster.wait_until(lambda: not zombies & set(cluster.processes()), "what was left has ended")
    left = desk.folder / f".sft-job-{job.number}-0.exit"  # srun was gone before it could be heard
    cluster.wait_until(left.exists, "what was left says why it has ended")
    assert re.match(rf"{ExitCode.FENCED.value}\n0\nattempt 2 took over ", left.read_text(encoding="utf-8"))
    assert [line for line in job.decisions() if "(done)" in line] == job.decisions()[-1:], said
    store = runs.store("run")
    assert [owner.attempt for owner in attempts(store)] == [1, 2]
    assert read_commit(store, commit_keys(store)[0]).attempt == 2
    alone.assert_equals(store)
    assert job.ended() == ("COMPLETED", 0) and job.restarts() == 1, "what was left disturbed the next life"


def test_a_cancelled_job_commits_stays_cancelled_and_the_next_sbatch_goes_on_from_there(
    desk: Desk, runs: TinyRuns, cluster: Cluster, alone: Alone
) -> None:
    pace = desk.slow()
    arguments = runs.arguments("run", {})[1:]
    job = desk.sbatch(arguments)
    job.wait_for_commit(50)
    job.scancel()
    assert job.ended()[0] == "CANCELLED"
    cluster.wait_until(lambda: not job.processes(), "the cancelled job's processes have ended")
    assert job.restarts() == 0 and job.state() == "CANCELLED"
    last = step_of(commit_keys(runs.store("run"))[0])
    pace.as_fast_as_it_can()
    said = desk.sbatch(arguments).finished()
    assert f"attempt 2: resumed from step {last} " in said, said
    alone.assert_equals(runs.store("run"))


def test_a_second_sbatch_of_a_running_run_leaves_with_77_and_disturbs_nothing(
    desk: Desk, runs: TinyRuns, alone: Alone
) -> None:
    pace = desk.slow()
    arguments = runs.arguments("run", {})[1:]
    first = desk.sbatch(arguments)
    first.wait_for_commit(50)
    second = desk.sbatch(arguments)
    assert second.ended() == ("FAILED", ExitCode.BUSY) and second.restarts() == 0
    assert re.search(rf"attempt 1 on \S+ \(SLURM_JOB_ID={first.number}\)", second.last_line()), second.said()
    pace.as_fast_as_it_can()
    assert "attempt 2" not in first.finished() and first.restarts() == 0
    alone.assert_equals(runs.store("run"))


def test_a_mistake_in_the_config_is_said_once_and_never_queued_again(desk: Desk, runs: TinyRuns) -> None:
    job = desk.sbatch(runs.arguments("run", {"train__max_stepps": 5})[1:])
    assert job.ended() == ("FAILED", ExitCode.CONFIG) and job.restarts() == 0
    assert "max_stepps: unknown field" in job.last_line(), job.said()


CRASH = """
import os, signal
from transformers import TrainerCallback


class Crash(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        os.kill(os.getpid(), signal.SIGKILL)


def callbacks(config):
    return [Crash()]
"""


def test_a_crash_is_tried_again_as_often_as_was_said_and_its_cause_is_the_last_line(desk: Desk, runs: TinyRuns) -> None:
    (desk.folder / "hooks.py").write_text(CRASH, encoding="utf-8")
    job = desk.sbatch(runs.arguments("run", {})[1:], SFT_JOB_RETRIES="1")
    assert job.ended() == ("FAILED", ExitCode.CRASHED), job.told()
    assert job.restarts() == 1 and len(job.decisions()) == 2, job.said()
    assert re.search(r"given up after .*rank 0 was ended by SIGKILL", job.last_line()), job.said()
