"""Ranks of all nodes as one launch: the leader's own are real processes, the other nodes speak over real sockets."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from job.errors import ConfigError, DataError, ExitCode, NodeLost, RankCrashed
from job.host import gang_ranks
from job.host.gang import Report
from job.host.gang_messages import End, Failing, Launch, RanksEnded, Ready, Settle
from job.host.gang_ranks import GangRanks, first_cause
from job.host.launcher import Ended
from job.host.topology import Topology
from job.rundir import RunDir, Spec
from tests.ganging import Led, Node, begin, hello, led, wait_until

ROOT = Path(__file__).parents[3]
MODULE = "tests.unit.host.standin_rank"


@dataclass
class Together:
    """Node 0 with two real ranks, and node 1 word for word."""

    leader: Led
    node: Node
    run: RunDir

    def ranks(self, *acts: str) -> GangRanks:
        for rank, words in enumerate(acts):
            (self.run.path / f"do-{rank}").write_text(words)
        machine = Topology("cpu", 2, "ddp", nodes=2, leader="127.0.0.1", port=self.leader.port)
        return GangRanks(self.leader.gang, self.run, machine, MODULE)

    def says(self, **words: Any) -> None:
        self.node.line.send(RanksEnded(nonce="n1", launch=1, **words))


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Together]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run = RunDir(tmp_path / "run").make()
    Spec({}, 1, "n1", "/base", None, launch=1).write(run)
    with led(hello(0, nodes=2)) as leader:
        leader.gang.begin(begin("n1"))
        node = leader.node(1, nodes=2)
        assert node.hears() == begin("n1")
        node.line.send(Ready(nonce="n1"))
        wait_until(lambda: leader.gang.missing() == ([], []))
        yield Together(leader, node, run)


def end_of(ranks: GangRanks) -> Ended:
    found: list[Ended] = []
    wait_until(lambda: (ended := ranks.ended()) is not None and (found.append(ended) or True))
    return found[0]


def test_all_well_is_when_every_node_says_so(together: Together) -> None:
    with together.ranks("exit:0", "exit:0") as ranks:
        launch = together.node.hears()
        assert isinstance(launch, Launch) and launch.spec["nonce"] == "n1" and launch.strategy == "ddp"
        time.sleep(1.0)
        assert ranks.ended() is None, "node 1 was not waited for"
        together.says(code=0)
        assert end_of(ranks) == Ended(ExitCode.DONE, None)


def test_a_stop_is_the_end_of_all(together: Together) -> None:
    with together.ranks("raise:stopped", "raise:stopped") as ranks:
        together.says(code=75)
        assert end_of(ranks) == Ended(ExitCode.STOPPED, None)


def test_a_failure_elsewhere_ends_the_ranks_here(together: Together) -> None:
    with together.ranks("sleep:300", "sleep:300") as ranks:
        together.node.line.send(Failing(nonce="n1", launch=1))
        together.node.hears()
        wait_until(lambda: ranks.ended() is None and together.leader.gang.failing)
        assert together.node.hears() == Settle(launch=1)
        together.says(code=65, message="rank 3: a bad row", seconds_ago=0.5)
        ended = end_of(ranks)
        assert isinstance(ended.error, DataError) and str(ended.error) == "node 1, rank 3: a bad row"


def test_a_failure_here_ends_the_ranks_elsewhere(together: Together) -> None:
    with together.ranks("raise:config", "sleep:300") as ranks:
        together.node.hears()
        wait_until(lambda: ranks.ended() is None and ranks._settling_since)
        assert together.node.hears() == Settle(launch=1)
        together.says(code=70, message="rank 2: Connection closed by peer", seconds_ago=1.0)
        ended = end_of(ranks)
        assert isinstance(ended.error, ConfigError) and str(ended.error) == "node 0, rank 0: a wrong field"


def test_a_lost_node_ends_the_ranks_at_once_and_their_echoes_do_not_count(together: Together) -> None:
    with together.ranks("raise:echo", "sleep:300") as ranks:
        wait_until(lambda: ranks.ended() is None and ranks._settling_since)
        together.node.line.hang_up()
        ended = end_of(ranks)
        assert isinstance(ended.error, NodeLost)
        assert str(ended.error) == "node 1 was lost (the connection was closed)"


def test_a_node_that_does_not_say_how_its_ranks_ended_is_lost(
    together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gang_ranks, "REPORT_SECONDS", 0.5)
    with together.ranks("exit:1", "exit:1") as ranks:
        ended = end_of(ranks)
        assert isinstance(ended.error, NodeLost) and "does not say how its ranks ended" in str(ended.error)


def test_nodes_hear_of_an_end_that_the_leader_decides(together: Together) -> None:
    with together.ranks("sleep:300", "sleep:300") as ranks:
        assert isinstance(together.node.hears(), Launch)
        assert "rank 0" in ranks.stacks()
        assert together.node.hears() == End(launch=1, hung=True)
    assert together.node.hears() == End(launch=1)


def test_work_that_is_done_is_not_undone_by_a_node_that_is_lost_afterwards(together: Together) -> None:
    with together.ranks("exit:0", "exit:0") as ranks:
        wait_until(lambda: ranks._own.ended() is not None)
        together.node.line.hang_up()
        assert end_of(ranks) == Ended(ExitCode.DONE, None)


# ---- whose fault it was: pure


def crash(message: str, **other: Any) -> Ended:
    return Ended(ExitCode.CRASHED, RankCrashed(message), **other)


def report(message: str, failed_at: float, **other: Any) -> Report:
    return Report(RanksEnded(nonce="n1", launch=1, code=70, message=message, **other), failed_at)


NOTHING = Ended(ExitCode.STOPPED, None)


@pytest.mark.parametrize(
    ("own", "reports", "cause"),
    [
        (crash("rank 0: x"), {1: report("rank 2: y", 99.0)}, "node 1, rank 2: y"),
        (crash("rank 0: x", seconds_ago=5.0), {1: report("rank 2: y", 99.0)}, "node 0, rank 0: x"),
        (
            crash("rank 0: x", seconds_ago=5.0),
            {1: report("rank 2 was ended by SIGKILL", 99.0, from_outside=True)},
            "2 was",
        ),
        (
            crash("rank 0: RuntimeError: Connection reset by peer", seconds_ago=5.0),
            {1: report("rank 2: y", 99.0)},
            "2: y",
        ),
        (NOTHING, {1: report("rank 2: y", 99.0), 2: report("rank 4: z", 98.0)}, "node 2, rank 4: z"),
        (crash("rank 0: x"), {1: Report(RanksEnded(nonce="n1", launch=1, code=75), 1.0)}, "node 0, rank 0: x"),
    ],
    ids=["earlier there", "earlier here", "killed", "echo", "two others", "none there"],
)
def test_the_first_cause_is_no_echo(own: Ended, reports: dict[int, Report], cause: str) -> None:
    found = first_cause(own, 100.0, reports)
    assert found.code == ExitCode.CRASHED and cause in str(found.error)
    named = re.match(r"node (\d+)", str(found.error))
    assert named and found.error and found.error.node_rank == int(named[1])
