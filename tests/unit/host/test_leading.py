"""The leader waits for its nodes within a bound, says whom it misses, and has the last word however it ends."""

import threading
from collections.abc import Callable, Iterator

import pytest

from job.config import RunConfig
from job.errors import ConfigError, ExitCode, Fenced, HardwareError, JobError, Stopped, node_rank_of
from job.host.crew import Alone, crew
from job.host.gang_admission import hello
from job.host.gang_client import Leader
from job.host.gang_messages import Done, Failed, Message, Ready
from job.host.leading import Leading, leading
from job.host.preemption import Stop
from job.host.topology import Topology
from tests.ganging import PACE, Led, Node, begin, led, wait_until
from tests.ganging import hello as hello_of
from tests.servers import free_port

CONFIG = RunConfig.from_dict(
    {"run": "/runs/a", "model": {"base": "/base"}, "data": {"train": ["/d.jsonl"]}, "lora": None}
)


@pytest.fixture
def leader() -> Iterator[Led]:
    with led() as made:
        yield made


def nodes(leader: Led, wait_seconds: float = 1.0, replaced: bool = True) -> Leading:
    return Leading(leader.gang, wait_seconds, f"{wait_seconds:.0f}s", leader.said.append, replaced)


def nothing() -> None:
    """No stop, no newer attempt."""


def test_nodes_that_do_not_come_are_named_while_they_are_waited_for_and_at_the_end(leader: Led) -> None:
    leader.node(2)
    with pytest.raises(
        Stopped, match=r"^node 1 did not come within 1s; nothing was committed yet; run the same command"
    ):
        nodes(leader).gather(nothing, lambda: "nothing was committed yet")
    assert leader.said.count("waiting for node 1 of 3") == 1


def test_a_node_that_was_refused_and_never_replaced_ends_the_run_with_why(leader: Led) -> None:
    leader.node(2)
    Node(leader.connected()).line.send(hello_of(1, version="0.9"))
    wait_until(lambda: 1 in leader.gang.refused)
    with pytest.raises(
        ConfigError, match=r"^node 1 did not come within 1s; node 1 does not fit: sft-job is 0\.9 there"
    ):
        nodes(leader).gather(nothing, lambda: "nothing was committed yet")
    leader.node(1)
    assert leader.gang.refused == {}


def test_a_node_that_said_why_it_leaves_ends_the_run_with_that_at_once_where_none_can_replace_it(leader: Led) -> None:
    hardware = Failed(code=ExitCode.HARDWARE, message="no GPU is visible")
    for came in (True, False):
        leader.gang.refused.clear()
        if came:
            node = leader.node(2)
            node.line.send(hardware)
            node.line.finish()
        else:  # it never got so far as to know its ranks
            Node(leader.connected()).line.send(hello_of(2, ranks_per_node=0, device="", failed=hardware))
        wait_until(lambda: 2 in leader.gang.refused)
        with pytest.raises(HardwareError, match=r"no GPU is visible; nothing was committed yet$") as caught:
            nodes(leader, 600, replaced=False).gather(nothing, lambda: "nothing was committed yet")
        assert node_rank_of(caught.value) == 2
        with pytest.raises(HardwareError, match="no GPU is visible"):  # another one had time to come
            nodes(leader, 0.2).gather(nothing, lambda: "")


def test_another_jobs_node_that_was_refused_does_not_end_the_run_before_ours_had_time_to_come(leader: Led) -> None:
    leader.node(2)
    Node(leader.connected()).line.send(hello_of(1, version="0.9"))
    wait_until(lambda: 1 in leader.gang.refused)
    late = threading.Timer(0.5, lambda: leader.node(1))
    nodes(leader).begin(begin("n1"))
    late.start()
    with pytest.raises(Fenced):  # until then it waited
        nodes(leader, 600, replaced=False).gather(fenced_once(lambda: 1 not in leader.gang.refused), lambda: "")


def fenced_once(true: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if true():
            raise Fenced("a newer attempt owns the run")

    return check


def test_a_lost_node_is_not_waited_for_as_long_where_none_can_replace_it(
    leader: Led, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.host.leading.RECONNECT_SECONDS", 0.3)
    for rank in (1, 2):
        leader.node(rank).line.hang_up()
    wait_until(lambda: len(leader.gang.why_lost) == 2)
    with pytest.raises(Stopped, match=r"^nodes 1, 2 were lost and did not return within 0s"):
        nodes(leader, 600, replaced=False).gather(nothing, lambda: "")


def test_a_node_that_was_here_is_said_to_be_lost(leader: Led) -> None:
    for rank in (1, 2):
        leader.node(rank).line.hang_up()
    wait_until(lambda: len(leader.gang.why_lost) == 2)
    with pytest.raises(Stopped, match=r"^nodes 1, 2 were lost and did not return within 1s; the last commit is c"):
        nodes(leader).gather(nothing, lambda: "the last commit is c")
    assert "waiting for nodes 1, 2 of 3" in leader.said


def test_a_node_that_is_here_is_given_the_time_that_its_inputs_take(leader: Led) -> None:
    nodes(leader).begin(begin("n1"))
    first, second = leader.node(1), leader.node(2)
    first.line.send(Ready(nonce="n1"))
    late = threading.Timer(2.0, lambda: second.line.send(Ready(nonce="n1")))
    late.start()
    nodes(leader).gather(nothing, lambda: "")
    assert "waiting for the inputs of node 2" in leader.said or "waiting for the inputs of nodes 1, 2" in leader.said


def test_what_comes_up_meanwhile_ends_the_waiting(leader: Led) -> None:
    def fenced() -> None:
        raise Fenced("a newer attempt owns the run")

    with pytest.raises(Fenced):
        nodes(leader, 600).gather(fenced, lambda: "")


def test_one_node_needs_nobody() -> None:
    with crew(CONFIG, Topology("cpu", 2, "ddp"), Stop(30), print) as alone:
        assert isinstance(alone, Alone)
        alone.gather(nothing, lambda: "")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (None, ExitCode.DONE, "done"),
        (Fenced("a newer attempt owns the run"), ExitCode.FENCED, "a newer attempt owns the run"),
        (ZeroDivisionError("a bug"), ExitCode.CRASHED, "ZeroDivisionError: a bug"),
    ],
)
def test_the_others_hear_how_the_leader_ends(error: Exception | None, code: int, reason: str) -> None:
    """Also a node that was only about to come when the leader failed at once."""
    machine = Topology("cpu", 1, "ddp", nodes=2, port=free_port())
    other = Topology("cpu", 1, "ddp", nodes=2, node_rank=1, port=machine.port)
    heard: list[Message] = []
    with Leader("127.0.0.1", machine.port, hello(CONFIG, other), print, PACE) as node:
        try:
            with leading(CONFIG, machine, Stop(30), print, PACE):
                if error is not None:
                    raise error
                wait_until(lambda: node.away_seconds == 0)
        except (JobError, ZeroDivisionError):
            pass
        wait_until(lambda: (message := node.hear(0.05)) is not None and (heard.append(message) or True))
    assert heard == [Done(code=code, reason=reason)]
