"""Everything that asks for a stop becomes one request with one deadline. Handlers set a flag; loops act on it.

Requests are only ever appended, and only what brings the deadline nearer is: the first one gives the reason, the
earliest one the deadline. So neither a signal handler nor a thread that watches for notices needs a lock.
"""

import signal
import time
from types import FrameType
from typing import NamedTuple

from job.host.launcher import STOP_SIGNALS


def hold_stop_signals() -> None:
    """Until somebody listens: a stop that comes while the config is read is heard then, and is no crash."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


class _Request(NamedTuple):
    reason: str
    asked_at: float
    deadline: float  # when the machine goes away; both on the monotonic clock


class Stop:
    """The one stop request of a supervisor.

    A second signal changes nothing. An earlier deadline that is learned later (SIGTERM with 30 s after a notice of
    120 s) counts; a later one never does.
    """

    def __init__(self, grace_seconds: float, max_time_seconds: float | None = None) -> None:
        self.grace_seconds = grace_seconds
        self._requests: list[_Request] = []
        self._ends: dict[str, float] = {}
        if max_time_seconds is not None:
            self.ends_in("max_time", max_time_seconds)

    def listen(self) -> "Stop":
        for number in STOP_SIGNALS:
            signal.signal(number, self._received)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return self

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)

    def request(self, reason: str, seconds: float | None = None) -> None:
        """Ask for the stop, from a signal handler or any thread.

        `seconds` until the machine goes away; None: the grace period.
        """
        now = time.monotonic()
        self._ask(reason, now, now + (self.grace_seconds if seconds is None else seconds))

    def ends_in(self, reason: str, seconds: float) -> None:
        """All will be over in so many seconds: the stop is asked for one grace period before.

        Said again for the same reason, it is the new end that counts, unless the stop was asked for already.
        """
        self._ends[reason] = time.monotonic() + seconds

    def _ask(self, reason: str, now: float, deadline: float) -> None:
        if deadline < self._deadline:
            self._requests.append(_Request(reason, now, deadline))

    def requested(self) -> bool:
        """Polled by every loop."""
        now = time.monotonic()
        for reason, end in tuple(self._ends.items()):
            if now > end - self.grace_seconds:
                self._ask(reason, now, end)
        return bool(self._requests)

    @property
    def reason(self) -> str | None:
        """Who asked first; None while nobody did."""
        return self._requests[0].reason if self._requests else None

    @property
    def seconds_left(self) -> float:
        """Until the deadline; infinite while no stop was requested."""
        return self._deadline - time.monotonic()

    @property
    def budget_seconds(self) -> float:
        """From the first request to the deadline, the grace period in short; infinite while no stop was requested."""
        return self._deadline - self._requests[0].asked_at if self._requests else float("inf")

    @property
    def _deadline(self) -> float:
        return min((request.deadline for request in tuple(self._requests)), default=float("inf"))
