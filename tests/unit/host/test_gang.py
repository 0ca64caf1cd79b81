"""A leader and its nodes over real sockets: who is let in, who is ready, who is lost; strangers do no harm."""

import time
from collections.abc import Iterator

import pytest

from job.errors import ConfigError, DataError, HardwareError
from job.host import gang_server
from job.host.gang_messages import (
    HELLO_BYTES,
    Done,
    Failed,
    Failing,
    Launch,
    RanksEnded,
    Ready,
    Refused,
    Settle,
    Stopping,
)
from tests.ganging import PACE, Led, Node, begin, hello, led, wait_until

LAUNCH = Launch(spec={}, strategy="ddp", port=1234)


@pytest.fixture
def leader() -> Iterator[Led]:
    with led() as made:
        yield made


# ---- who is let in


def test_nodes_are_missing_until_they_come_and_busy_until_they_are_ready(leader: Led) -> None:
    leader.gang.begin(begin("n1"))
    assert leader.gang.missing() == ([1, 2], [])
    first, second = leader.node(1), leader.node(2)
    assert first.hears() == begin("n1") and leader.gang.missing() == ([], [1, 2])
    first.line.send(Ready(nonce="n1"))
    wait_until(lambda: leader.gang.missing() == ([], [2]))
    second.line.send(Ready(nonce="an older attempt's"))
    second.line.send(Ready(nonce="n1"))
    wait_until(lambda: leader.gang.missing() == ([], []))


def test_who_came_before_the_attempt_is_told_of_it(leader: Led) -> None:
    node = leader.node(1)
    leader.gang.begin(begin("n1"))
    assert node.hears() == begin("n1")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"version": "0.9"}, "sft-job is 0.9 there, 1.0 on node 0"),
        ({"nodes": 4}, "the number of nodes is 4 there, 3 on node 0"),
        ({"node_rank": 7}, "node rank 7 is none of 1 to 2 of 3 nodes"),
        ({"node_rank": 0}, "node rank 0 is none of 1 to 2 of 3 nodes"),
        ({"node_rank": -1}, "node rank -1 is none of 1 to 2 of 3 nodes"),
        ({"ranks_per_node": 8}, "ranks on each node is 8 there, 2 on node 0"),
        ({"device": "cuda"}, "the device is cuda there, cpu on node 0"),
        ({"trajectory": {"train.learning_rate": 0.02, "data.train.0.uri": "a.jsonl"}}, "train.learning_rate is 0.02"),
        ({"trajectory": {"train.learning_rate": 0.01}}, "data.train.0.uri is absent there, a.jsonl on node 0"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_values(leader: Led, other: dict[str, object], told: str) -> None:
    node = Node(leader.connected())
    node.line.send(hello(1).model_copy(update=other))
    refused = node.hears()
    assert isinstance(refused, Refused) and refused.code == 78 and not refused.again and told in refused.reason
    assert node.hears() is None, "its connection stays open"
    assert leader.gang.missing()[0] == [1, 2]
    wait_until(lambda: any(told in line for line in leader.said))


def test_a_second_supervisor_of_a_node_that_is_here_may_try_again(leader: Led) -> None:
    leader.node(1)
    twin = Node(leader.connected())
    twin.line.send(hello(1, process="another"))
    refused = twin.hears()
    assert isinstance(refused, Refused) and refused.again and "node 1 is here already" in refused.reason


def test_the_same_supervisor_takes_the_place_of_its_dead_connection(leader: Led) -> None:
    before, _ = both_ready(leader)
    assert before.hears() == begin("n1")
    leader.gang.launch(1, LAUNCH)
    after = leader.node(1, again=True)
    heard = [before.hears(), before.hears()]
    assert heard == [LAUNCH, None], "the old connection is not closed"
    assert leader.gang.ended() == ({}, {1: "it came back over another connection"})
    assert after.hears() == begin("n1")


# ---- strangers


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n",
        b"[" * 100_000 + b"\n",
        b'{"kind": ["hello"]}\n',
        b'{"kind": "hello", "version": 3}\n',
        b'{"kind": "done", "code": 0, "reason": "all is well"}\n',
        b"a" * (HELLO_BYTES + 100_000),
        b"",
    ],
    ids=["http", "tls", "deep", "list", "types", "done", "long", "nothing"],
)
def test_a_stranger_is_cut_off_and_harms_nobody(leader: Led, words: bytes) -> None:
    member = leader.node(1)
    with leader.connected() as stranger:
        try:
            stranger.sendall(words)
            while stranger.recv(1 << 16):
                pass
        except ConnectionError:
            pass
    wait_until(lambda: any("was closed" in line for line in leader.said))
    member.line.send(Ready(nonce=""))
    leader.gang.begin(begin("n1"))
    assert member.hears() == begin("n1")


def test_whoever_scans_the_port_does_not_fill_the_log(leader: Led) -> None:
    for number in range(60):
        with leader.connected() as stranger:
            stranger.sendall(f"hello {number}\n".encode())
            stranger.recv(100)
    assert 0 < len(leader.said) <= 20


def test_a_member_that_talks_nonsense_is_lost(leader: Led) -> None:
    node = leader.node(1)
    node.connection.sendall(b"nonsense\n")
    wait_until(lambda: leader.gang.missing()[0] == [1, 2])
    assert "does not speak as a node" in leader.gang.why_lost[1]


# ---- a launch


def both_ready(leader: Led) -> tuple[Node, Node]:
    leader.gang.begin(begin("n1"))
    nodes = leader.node(1), leader.node(2)
    for node in nodes:
        node.line.send(Ready(nonce="n1"))
    wait_until(lambda: leader.gang.missing() == ([], []))
    return nodes


def test_a_replacement_that_is_not_ready_is_not_launched_but_lost_to_the_launch(leader: Led) -> None:
    first, _ = both_ready(leader)
    first.line.hang_up()
    wait_until(lambda: leader.gang.missing() == ([1], []))
    replacement = leader.node(1, process="new")
    leader.gang.launch(1, LAUNCH)
    leader.gang.settle()
    assert [replacement.hears(), replacement.hears()] == [begin("n1"), Settle(launch=1)]
    assert leader.gang.ended() == ({}, {1: "it is not ready"})


def test_reports_count_for_their_launch_only(leader: Led) -> None:
    node, _ = both_ready(leader)
    leader.gang.launch(2, LAUNCH)
    node.line.send(Failing(nonce="n1", launch=1))
    node.line.send(RanksEnded(nonce="n0", launch=2, code=70, message="rank 2: old"))
    node.line.send(RanksEnded(nonce="n1", launch=1, code=70, message="rank 2: old"))
    node.line.send(Stopping(reason="a mark", seconds_left=9.0))  # what was sent before it is taken in
    wait_until(lambda: leader.stops)
    assert leader.gang.ended() == ({}, {}) and not leader.gang.failing
    node.line.send(Failing(nonce="n1", launch=2))
    node.line.send(RanksEnded(nonce="n1", launch=2, code=70, message="rank 2: new", seconds_ago=3.0))
    wait_until(lambda: leader.gang.ended()[0])
    report = leader.gang.ended()[0][1]
    assert leader.gang.failing and report.ended.message == "rank 2: new" and time.monotonic() - report.failed_at > 2.9


def test_a_node_that_is_gone_before_its_ranks_are_is_lost_and_one_after_is_not(leader: Led) -> None:
    first, second = both_ready(leader)
    leader.gang.launch(1, LAUNCH)
    first.line.send(RanksEnded(nonce="n1", launch=1, code=0))
    wait_until(lambda: leader.gang.ended()[0])
    for node in (first, second):
        node.line.hang_up()
    wait_until(lambda: leader.gang.missing()[0] == [1, 2])
    assert leader.gang.ended()[1] == {2: "the connection was closed"}


def test_a_node_that_is_not_there_is_lost_to_the_launch_from_its_beginning(leader: Led) -> None:
    leader.node(1)
    leader.gang.begin(begin("n1"))
    leader.gang.launch(1, LAUNCH)
    assert leader.gang.ended()[1] == {1: "it is not ready", 2: "it is not here"}


def test_silence_is_noticed_and_signs_of_life_are_heard(leader: Led) -> None:
    leader.node(2)
    silent = leader.connected()
    silent.sendall(hello(1).line())
    wait_until(lambda: leader.gang.missing()[0] == [])
    wait_until(lambda: leader.gang.missing()[0] == [1])
    silent.close()
    assert leader.gang.why_lost[1] == f"silent for {PACE.silent_seconds:.0f} s"
    time.sleep(PACE.silent_seconds)
    assert leader.gang.missing()[0] == [1], "the one that gave signs of life was lost too"


# ---- last words


def test_a_nodes_stop_is_passed_on_with_what_is_left_of_its_time(leader: Led) -> None:
    leader.node(2).line.send(Stopping(reason="SIGTERM", seconds_left=12.5))
    wait_until(lambda: leader.stops)
    assert leader.stops == [("SIGTERM on node 2", 12.5)]


@pytest.mark.parametrize(("code", "kind"), [(65, DataError), (78, ConfigError)])
def test_what_no_replacement_would_do_better_ends_the_job(leader: Led, code: int, kind: type[Exception]) -> None:
    leader.node(1).line.send(Failed(code=code, message="the base is another"))
    with pytest.raises(kind, match="node 1: the base is another"):
        wait_until(lambda: leader.gang.missing() is None)


def test_a_full_disk_on_a_node_is_left_to_its_replacement(leader: Led) -> None:
    node = leader.node(1)
    node.line.send(Failed(code=69, message="no space left"))
    node.line.finish()
    wait_until(lambda: leader.gang.missing()[0] == [1, 2])
    assert any("node 1 leaves with exit code 69: no space left" in line for line in leader.said)


def test_all_hear_the_last_word_even_if_they_come_after_it(leader: Led) -> None:
    first = leader.node(1)
    leader.gang.done(75, "stopped by SIGTERM")
    assert first.hears() == Done(code=75, reason="stopped by SIGTERM")
    late = leader.node(2)
    assert late.hears() == Done(code=75, reason="stopped by SIGTERM")


def test_a_port_that_stays_taken_is_told_with_the_way_out(leader: Led, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang_server, "TAKEN_SECONDS", 0.3)
    with (
        pytest.raises(HardwareError, match=f"cannot listen at its port {leader.port}: .* SFT_JOB_LEADER=HOST:PORT"),
        gang_server.listening(leader.gang, leader.port, PACE),
    ):
        pass
