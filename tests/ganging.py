"""A leader's gang on a real port, and nodes that speak to it word for word, at a pace that tests can wait for."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from job.host.gang import Gang
from job.host.gang_line import Line, LineLost, Pace
from job.host.gang_messages import Begin, Hello, Message, Welcome
from job.host.gang_server import listening

PACE = Pace(alive_seconds=0.1, silent_seconds=1.5, hello_seconds=1.0)
PATIENCE_SECONDS = 20.0


def hello(rank: int = 1, **other: Any) -> Hello:
    known = {
        "version": "1.0",
        "nodes": 3,
        "node_rank": rank,
        "ranks_per_node": 2,
        "device": "cpu",
        "trajectory": {"train.learning_rate": 0.01, "data.train.0.uri": "a.jsonl"},
        "process": f"p{rank}",
    }
    return Hello(**{**known, **other})


def begin(nonce: str = "n1", **other: Any) -> Begin:
    known: dict[str, Any] = {
        "attempt": 1,
        "nonce": nonce,
        "config": {},
        "fingerprint": "f",
        "base_source": "/base",
        "base": {},
        "tokenizer_source": "/base",
        "tokenizer": {},
    }
    return Begin(**{**known, **other})


@dataclass
class Led:
    """The gang, its port, and what it told."""

    gang: Gang
    port: int = 0
    said: list[str] = field(default_factory=list)
    stops: list[tuple[str, float]] = field(default_factory=list)

    def connected(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def node(self, rank: int = 1, **other: Any) -> "Node":
        """One that was let in."""
        node = Node(self.connected())
        node.line.send(hello(rank, **other))
        assert isinstance(node.hears(), Welcome)
        return node


class Node:
    """What it hears is collected by a thread, which also says that it is alive."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.line = connection, Line(connection, PACE)
        self._heard: list[Message | None] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(LineLost), self.connection:
            while True:
                self._heard.append(self.line.receive())
        self._heard.append(None)

    def hears(self) -> Message | None:
        """The next message; None when the connection ended."""
        wait_until(lambda: bool(self._heard))
        return self._heard.pop(0)


@contextlib.contextmanager
def led(ours: Hello | None = None, port: int = 0) -> Iterator[Led]:
    said: list[str] = []
    stops: list[tuple[str, float]] = []
    gang = Gang(ours or hello(0), said.append, lambda reason, left: stops.append((reason, left)), PACE)
    with listening(gang, port, PACE) as bound:
        yield Led(gang, bound, said, stops)
        gang.done(0, "done")


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
