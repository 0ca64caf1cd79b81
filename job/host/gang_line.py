"""One connection between two nodes' supervisors: whole messages in and out; a peer that falls silent is lost.

Each side says every two seconds that it is there. No clocks are compared: silence is measured where it is heard.
"""

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass

from job.host.gang_messages import HELLO_BYTES, LINE_BYTES, Alive, Message, parse

CHUNK_BYTES = 1 << 16
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Pace:
    """In seconds: how often a sign of life is sent, and how long a peer may give none."""

    alive_seconds: float = 2.0
    silent_seconds: float = 15.0
    hello_seconds: float = 10.0  # for the first message


class LineLost(Exception):
    """The connection is of no use any more; the message says why."""


class Line:
    """`receive` is for one thread, which also sends the signs of life; any thread may `send`."""

    def __init__(self, connection: socket.socket, pace: Pace) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(pace.silent_seconds)  # of a send; what is received is waited for below
        self._connection, self._pace = connection, pace
        self._received = bytearray()
        self._searched = 0
        self._most_bytes = HELLO_BYTES
        self._sending = threading.Lock()
        self._heard_at = self._sent_at = time.monotonic()
        self._readable = select.poll()
        self._readable.register(connection, select.POLLIN)

    def trust(self) -> None:
        """The peer was let in: it may say more at once."""
        self._most_bytes = LINE_BYTES

    def send(self, message: Message) -> None:
        """Raises: LineLost."""
        with self._sending:
            try:
                self._connection.sendall(message.line())
            except OSError as error:
                raise LineLost(f"the connection broke: {error}") from error
            self._sent_at = time.monotonic()

    def receive(self, within_seconds: float | None = None) -> Message:
        """The next message that is no sign of life. Raises: LineLost, also when what comes is none."""
        until = None if within_seconds is None else time.monotonic() + within_seconds
        while True:
            while (line := self._whole_line()) is not None:
                try:
                    message = parse(line)
                except ValueError as error:
                    raise LineLost(f"it does not speak as a node of this job: {error}") from error
                if not isinstance(message, Alive):
                    return message
            if until is not None and time.monotonic() > until:
                raise LineLost(f"it said nothing of use within {within_seconds:.0f} s")
            self._wait()

    def _whole_line(self) -> bytes | None:
        end = self._received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._received)
            if len(self._received) > self._most_bytes:
                raise LineLost(f"it sent a line of more than {self._most_bytes:,} bytes")
            return None
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        self._searched = 0
        return line

    def _wait(self) -> None:
        """For more bytes, a moment; says meanwhile that we are there."""
        if time.monotonic() - self._sent_at >= self._pace.alive_seconds:
            self.send(Alive())
        try:
            if self._readable.poll(min(POLL_SECONDS, self._pace.alive_seconds) * 1000):
                chunk = self._connection.recv(CHUNK_BYTES)
                if not chunk:
                    raise LineLost("the connection was closed")
                self._received += chunk
                self._heard_at = time.monotonic()
        except OSError as error:
            raise LineLost(f"the connection broke: {error}") from error
        if time.monotonic() - self._heard_at > self._pace.silent_seconds:
            raise LineLost(f"silent for {self._pace.silent_seconds:.0f} s")

    def finish(self) -> None:
        """Nothing more will be sent; what is under way still arrives."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def hang_up(self) -> None:
        """From any thread: whoever receives finds the line lost."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
