"""One run on several nodes, with a supervisor each: complete, killed, late, refused, stopped; nothing is left."""

import contextlib
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.attempts import attempts
from job.storage.checkpoints import commit_keys, step_of
from job.tiny import make, write_demo_chat
from tests.ganging import Node, hello, wait_until
from tests.harness import Job
from tests.tiny_runs import TinyRuns, assert_same
from tests.two_nodes import Nodes, losses

pytestmark = pytest.mark.slow

STEPS = {"train__max_steps": 40}
Start = Callable[..., Nodes]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    """With the run `alone`: two ranks on one node, undisturbed."""
    root = tmp_path_factory.mktemp("nodes")
    make(root / "base")
    write_demo_chat(root / "chat.jsonl")
    runs = TinyRuns(str(root), root / "home", {})
    runs.write_config("null")
    runs.finish("alone", parallel__nproc_per_node=2, **STEPS)
    return runs


@pytest.fixture
def nodes(place: TinyRuns) -> Iterator[Start]:
    with contextlib.ExitStack() as all_of_them:

        def start(name: str, runs: TinyRuns = place, **fields: Any) -> Nodes:
            return all_of_them.enter_context(Nodes(runs, name, {"parallel__wait_for_nodes": "60s", **STEPS, **fields}))

        yield start


def last_line(job: Job) -> str:
    return job.said().splitlines()[-1]


# ---- to the end


def test_two_nodes_compute_what_two_ranks_of_one_node_compute(nodes: Start, place: TinyRuns, tmp_path: Path) -> None:
    both = nodes("both")
    leader, follower = both.start_all()
    assert both.ended(leader, follower) == [ExitCode.DONE, ExitCode.DONE], both.said()
    assert_same(place, "alone", "both", tmp_path)
    assert losses(place.store("both")) == losses(place.store("alone"))

    again = both.start(1)
    assert both.ended(again) == [ExitCode.DONE] and "is finished: step 40" in again.said()
    assert "waiting" not in again.said(), "a node of a finished run looked for its leader"


def test_a_late_node_is_waited_for_and_said_to_be_late(nodes: Start, on_s3: TinyRuns) -> None:
    """On S3, two ranks on each node."""
    four = nodes("four", on_s3, parallel__nproc_per_node=2, train__max_steps=6)
    leader = four.start(0)
    leader.wait_for("waiting for node 1 of 2")
    follower = four.start(1)
    assert four.ended(leader, follower) == [ExitCode.DONE, ExitCode.DONE], four.said()
    assert "computing in float32 on 4 x cpu" in leader.said() and "ranks 2 to 3" in follower.said()


def test_what_is_sharded_over_nodes_goes_on_sharded_otherwise(nodes: Start, place: TinyRuns) -> None:
    """Only node 0 has the checkpoint: what node 1 needs of it, it is told."""
    sharded = nodes("sharded", parallel__strategy="zero3", train__max_steps=3000, data__eval=None)
    leader, follower = sharded.start_all()
    leader.wait_for_commit(20)
    follower.signal(signal.SIGTERM)
    assert sharded.ended(leader, follower) == [ExitCode.STOPPED, ExitCode.STOPPED], sharded.said()
    step = step_of(commit_keys(place.store("sharded"))[0])
    leader, follower = (sharded.start(rank, parallel__strategy="zero2") for rank in range(2))
    leader.wait_for_commit((step // 10 + 1) * 10)
    leader.signal(signal.SIGTERM)
    assert sharded.ended(leader, follower) == [ExitCode.STOPPED, ExitCode.STOPPED], sharded.said()
    assert f"resumed from step {step} " in leader.said() and "(zero2)" in leader.said()
    told = losses(place.store("sharded"))
    assert told[step + 1] < 0.9 * told[1], "the run went on from other weights"


# ---- what cannot take part


def test_a_node_without_its_gpus_ends_the_job_with_its_own_cause_and_says_where(nodes: Start) -> None:
    both = nodes("gpus", parallel__wait_for_nodes="600s")
    no_more = {"SLURM_STEP_NUM_NODES": "2", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"}  # srun starts no node twice
    leader = both.start(0, {**no_more, "SLURM_STEP_NODELIST": "127.0.0.1,n2"})
    follower = both.start(1, {"CUDA_VISIBLE_DEVICES": ""}, parallel__device="cuda")
    assert both.ended(follower, leader) == [ExitCode.HARDWARE, ExitCode.HARDWARE], both.said()
    assert re.search(r"node 1 did not come; node 1 cannot take part: parallel\.device is cuda, but", last_line(leader))


# ---- what is lost returns


def test_killed_ranks_of_one_node_begin_again_on_both(nodes: Start, place: TinyRuns, tmp_path: Path) -> None:
    both = nodes("ranks")
    leader, follower = both.start_all()
    leader.wait_for_commit(10)
    os.kill(follower.ranks()[0], signal.SIGKILL)
    assert both.ended(leader, follower) == [ExitCode.DONE, ExitCode.DONE], both.said()
    assert re.search(r"node 1, rank 1 was ended by SIGKILL.*begin again in place", leader.said())
    assert [owner.attempt for owner in attempts(place.store("ranks"))] == [1]
    assert_same(place, "alone", "ranks", tmp_path)


def test_a_killed_node_is_replaced_within_the_attempt(nodes: Start, place: TinyRuns, tmp_path: Path) -> None:
    both = nodes("node")
    leader, follower = both.start_all()
    leader.wait_for_commit(10)
    follower.signal(signal.SIGKILL)
    assert both.ended(follower) == [-signal.SIGKILL]
    replacement = both.start(1)
    assert both.ended(leader, replacement) == [ExitCode.DONE, ExitCode.DONE], both.said()
    assert re.search(r"node 1 was lost \(the connection was closed\); the ranks begin again in place", leader.said())
    assert [owner.attempt for owner in attempts(place.store("node"))] == [1]
    assert_same(place, "alone", "node", tmp_path)


def test_a_node_that_waits_joins_the_attempt_of_the_next_leader(nodes: Start, place: TinyRuns, tmp_path: Path) -> None:
    both = nodes("leader")
    leader, follower = both.start_all()
    leader.wait_for_commit(10)
    leader.signal(signal.SIGKILL)
    assert both.ended(leader) == [-signal.SIGKILL]
    follower.wait_for("node 0 was lost")
    wait_until(lambda: not follower.ranks())
    at_least = max(map(step_of, commit_keys(place.store("leader"))))
    successor = both.start(0)
    assert both.ended(successor, follower) == [ExitCode.DONE, ExitCode.DONE], both.said()
    assert f"resumed from step {at_least} " in successor.said() and "attempt 2, launch 1: rank 1" in follower.said()
    assert_same(place, "alone", "leader", tmp_path)


# ---- what is lost and does not return


def test_nodes_that_were_lost_for_too_long_end_the_attempt_with_75(nodes: Start, place: TinyRuns) -> None:
    both = nodes("gone", parallel__wait_for_nodes="3s", train__max_steps=3000)
    follower = both.start(1, parallel__wait_for_nodes="60s")
    leader = both.start(0)
    leader.wait_for_commit(10)
    follower.signal(signal.SIGKILL)
    assert both.ended(leader) == [ExitCode.STOPPED], both.said()
    newest = commit_keys(place.store("gone"))[0]
    assert f"node 1 was lost and did not return within 3s; the last commit is {newest}" in last_line(leader)


def test_nodes_that_never_come_and_a_leader_that_leaves_no_word_are_waited_for_within_the_bound(nodes: Start) -> None:
    never = nodes("never", parallel__wait_for_nodes="3s")
    leader = never.start(0)
    assert never.ended(leader) == [ExitCode.STOPPED] and "node 1 did not come within 3s; nothing was" in last_line(
        leader
    )
    follower = never.start(1)
    assert never.ended(follower) == [ExitCode.STOPPED]
    assert re.search(r"node 0 at 127.0.0.1:\d+ was not reached within 3s", last_line(follower))


# ---- refused


def test_a_node_that_does_not_fit_leaves_with_78_and_the_right_one_is_still_waited_for(nodes: Start) -> None:
    both = nodes("fits", train__max_steps=4)
    leader = both.start(0)
    leader.wait_for("this node leads 2 nodes")
    other = both.start(1, train__learning_rate=0.5)
    assert both.ended(other) == [ExitCode.CONFIG], both.said()
    assert "node 1 does not fit: its config is another: train.learning_rate is 0.5 there, 0.01 on" in last_line(other)
    older = Node(both.connected())
    older.line.send(hello(1, version="0.0.1", nodes=2, ranks_per_node=1))
    leader.wait_for(r"was refused: node 1 does not fit: sft-job is 0\.0\.1 there, \S+ on node 0")
    follower = both.start(1)
    assert both.ended(leader, follower) == [ExitCode.DONE, ExitCode.DONE], both.said()


def test_what_ends_the_leader_ends_the_others_with_its_code_and_line(nodes: Start, tmp_path: Path) -> None:
    both = nodes("bad", data__train=[str(tmp_path / "lost.jsonl")])
    follower = both.start(1)
    follower.wait_for("waiting for node 0")
    leader = both.start(0)
    assert both.ended(leader, follower) == [ExitCode.DATA, ExitCode.DATA], both.said()
    assert "lost.jsonl" in last_line(leader) and last_line(follower) == last_line(leader)


# ---- stopped


def test_a_signal_to_a_node_that_does_not_lead_stops_all_with_a_commit_at_that_step(
    nodes: Start, place: TinyRuns
) -> None:
    both = nodes("stopped", train__max_steps=3000, checkpoint__every="15m")
    leader, follower = both.start_all()
    leader.wait_for_step(3)
    follower.signal(signal.SIGTERM)
    assert both.ended(leader, follower) == [ExitCode.STOPPED, ExitCode.STOPPED], both.said()
    [newest] = commit_keys(place.store("stopped"))
    steps = [int(step) for step in re.findall(r"step ([\d,]+)/3,?000  loss", leader.said())]
    assert step_of(newest) == steps[-1] and last_line(leader) == last_line(follower)
    assert f"stopped by SIGTERM on node 1; the last commit is {newest}" in last_line(leader)
