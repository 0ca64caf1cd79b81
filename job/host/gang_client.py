"""A node's way to the job's leader: it connects, says hello, hears what comes, and connects again when that breaks off.

A thread does that; the supervisor's main thread takes the messages one by one and may send at any time.
"""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from job.errors import JobError, error_for
from job.host.gang_line import Line, LineLost, Pace
from job.host.gang_messages import Done, Hello, Message, Refused, Welcome

CONNECT_SECONDS = 5.0
AGAIN_SECONDS = 0.5
REFUSED_SECONDS = 45.0  # who may be let in later tries for so long: a lost predecessor is noticed meanwhile
LAST_WORDS_SECONDS = 2.0


class Lost(Exception):
    """The leader is lost for now; what it asked for is void."""


class Leader:
    """`hello`: what this node says of itself."""

    def __init__(self, host: str, port: int, hello: Hello, say: Callable[[str], None], pace: Pace) -> None:
        self.place = f"node 0 at {host}:{port}"
        self._address, self._hello, self._say, self._pace = (host, port), hello, say, pace
        self._line: Line | None = None
        self._heard: queue.Queue[Message | Lost | JobError] = queue.Queue()
        self._over = threading.Event()
        self._refused_at: float | None = None
        self._away_since: float | None = time.monotonic()
        self._told, self._last_word = "", False
        self.was_here = False
        self.why_refused = ""  # while the leader refuses this node, and may take it later
        self.why_nowhere = ""  # while the leader's name means nothing here
        self._thread = threading.Thread(target=self._work, daemon=True, name="leader")

    def __enter__(self) -> "Leader":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if (line := self._line) is not None:
            line.finish()  # the last words arrive before the connection ends
            self._thread.join(LAST_WORDS_SECONDS)
            line.hang_up()
        self._thread.join(CONNECT_SECONDS)

    @property
    def away_seconds(self) -> float:
        """Since there is no connection; 0: there is one."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def over(self) -> bool:
        """The leader's last word was heard, whether it is taken yet or not."""
        return self._last_word

    def hear(self, seconds: float) -> Message | None:
        """The next message; None when none came in this time. Raises: Lost; JobError when the leader refuses us."""
        try:
            heard = self._heard.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(heard, Exception):
            raise heard
        return heard

    def send(self, message: Message) -> None:
        """What cannot be sent is void with the connection, and whoever hears next learns of that."""
        if (line := self._line) is not None:
            with contextlib.suppress(LineLost):
                line.send(message)

    # ---- the thread

    def _work(self) -> None:
        while not self._over.is_set():
            try:
                with socket.create_connection(self._address, CONNECT_SECONDS) as connection:
                    self.why_nowhere = ""
                    self._converse(Line(connection, self._pace))
            except socket.gaierror as error:
                self.why_nowhere = (
                    f"this node does not know the name {self._address[0]!r} ({error.strerror}); set SFT_JOB_LEADER on "
                    "every node to a name or an address of node 0 that all of them reach"
                )
                self._tell(f"waiting for {self.place}: {self.why_nowhere}")
            except LineLost as error:
                self._tell(f"{self.place} does not answer as it should: {error}")
            except OSError as error:
                self._tell(f"waiting for {self.place}: {error.strerror or error}")
            self._over.wait(AGAIN_SECONDS)

    def _converse(self, line: Line) -> None:
        """Raises: LineLost, OSError before the leader has let us in."""
        line.send(self._hello)
        match line.receive(self._pace.hello_seconds):
            case Welcome():
                line.trust()
            case Refused(again=True, reason=reason) as refused if self._may_try_again():
                self.why_refused = reason
                return self._tell(reason)
            case Refused() as refused:
                self._over.set()
                self._last_word = True
                return self._heard.put(error_for(refused.code, f"{self.place} refuses this node: {refused.reason}"))
            case _:
                raise LineLost("it did not answer the hello")
        self._line, self._away_since, self._refused_at, self._told, self.why_refused = line, None, None, "", ""
        self._hello = self._hello.model_copy(update={"again": True})
        self.was_here = True
        try:
            while True:
                message = line.receive()
                self._last_word = self._last_word or isinstance(message, Done)
                self._heard.put(message)
        except LineLost as error:
            self._line, self._away_since = None, time.monotonic()
            self._heard.put(Lost(str(error)))

    def _may_try_again(self) -> bool:
        now = time.monotonic()
        self._refused_at = self._refused_at or now
        return now - self._refused_at < REFUSED_SECONDS

    def _tell(self, text: str) -> None:
        if text != self._told and not self._over.is_set():
            self._told = text
            self._say(text)
