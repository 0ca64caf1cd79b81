"""A node and its leader over real sockets: it connects when the leader is there, and again when it is back."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from job.errors import ConfigError
from job.host import gang_client
from job.host.gang_client import Leader, Lost
from job.host.gang_messages import Done, Message, Ready, Stopping
from tests.ganging import PACE, begin, hello, led, wait_until


@contextlib.contextmanager
def following(port: int, said: list[str] | None = None, host: str = "127.0.0.1", **other: object) -> Iterator[Leader]:
    ours = hello(1).model_copy(update=other)
    with Leader(host, port, ours, (said if said is not None else []).append, PACE) as leader:
        yield leader


def heard(leader: Leader) -> Message:
    """The next message."""
    found: list[Message] = []
    wait_until(lambda: (message := leader.hear(0.05)) is not None and (found.append(message) or True))
    return found[0]


def test_a_node_may_come_long_before_its_leader() -> None:
    said: list[str] = []
    with led() as first:
        port = first.port  # free again a moment later
    with following(port, said) as leader:
        wait_until(lambda: said)
        assert leader.away_seconds > 0 and "waiting for node 0 at 127.0.0.1" in said[0]
        with led(port=port) as second:
            second.gang.begin(begin("n1"))
            assert heard(leader) == begin("n1") and leader.away_seconds == 0
            leader.send(Ready(nonce="n1"))
            wait_until(lambda: second.gang.missing() == ([2], []))
    assert len(said) == 1, "what it waits for is said more than once"


def test_a_leaders_name_that_means_nothing_here_is_one_clear_line() -> None:
    said: list[str] = []
    with following(9, said, host="no-such-node.invalid") as leader:
        wait_until(lambda: said)
        assert "does not know the name 'no-such-node.invalid'" in said[0] and "set SFT_JOB_LEADER" in said[0]
        assert leader.why_nowhere in said[0] and "\n" not in said[0]


def test_a_lost_leader_is_told_once_and_its_successor_joined() -> None:
    with led() as first, following(first.port) as leader:
        wait_until(lambda: leader.away_seconds == 0)
        first.gang.give_up(1, "as if it was gone")
        with pytest.raises(Lost):
            wait_until(lambda: leader.hear(0.05))
        wait_until(lambda: leader.away_seconds == 0)
        first.gang.begin(begin("n2"))
        assert heard(leader) == begin("n2")
        wait_until(lambda: any("node 1 of 3 is here again" in line for line in first.said))


def test_a_refused_node_learns_why_and_does_not_come_back() -> None:
    with led() as first, following(first.port, version="0.9") as leader:
        with pytest.raises(ConfigError, match=r"node 0 at 127\.0\.0\.1:\d+ refuses this node: .* 0\.9 there, 1\.0 on"):
            wait_until(lambda: leader.hear(0.05))
        assert leader.over
        leader._thread.join(5)
        assert not leader._thread.is_alive()


def test_a_replacement_waits_until_its_predecessor_is_known_to_be_lost() -> None:
    with led() as first, first.connected() as silent, following(first.port, process="new") as leader:
        silent.sendall(hello(1, process="old").line())
        wait_until(lambda: any("here already" in line for line in first.said) or leader.away_seconds == 0)
        wait_until(lambda: leader.away_seconds == 0)


def test_two_nodes_that_claim_one_number_do_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gang_client, "REFUSED_SECONDS", 1.0)
    with led() as first, following(first.port, process="one"):
        wait_until(lambda: first.gang.missing()[0] == [2])
        with following(first.port, process="two") as second, pytest.raises(ConfigError, match="two supervisors have"):
            wait_until(lambda: second.hear(0.05))


def test_the_last_word_is_known_before_it_is_taken() -> None:
    with led() as first, following(first.port) as leader:
        wait_until(lambda: first.gang.missing()[0] == [2])
        first.gang.begin(begin())
        assert not leader.over
        first.gang.done(76, "a newer attempt owns the run")
        wait_until(lambda: leader.over)
        assert heard(leader) == begin() and heard(leader) == Done(code=76, reason="a newer attempt owns the run")


def test_the_last_words_of_a_node_arrive_though_it_leaves_at_once() -> None:
    with led() as first:
        with following(first.port) as leader:
            wait_until(lambda: leader.away_seconds == 0)
            leader.send(Stopping(reason="SIGTERM", seconds_left=3.0))
        wait_until(lambda: first.stops)
        wait_until(lambda: first.gang.missing()[0] == [1, 2])


def test_something_else_at_the_leaders_address_is_no_leader() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as other, following(other.getsockname()[1], said) as leader:
        for _ in range(2):
            connection, _ = other.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            connection.close()
        wait_until(lambda: said)
        assert leader.away_seconds > 0 and "does not answer as it should" in said[0]
        connection, _ = other.accept()
        connection.close()
