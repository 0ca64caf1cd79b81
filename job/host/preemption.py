"""Every signal becomes one stop request with one deadline. Handlers set a flag; loops act on it."""

import signal
import time
from types import FrameType

from job.host.launcher import STOP_SIGNALS


def hold_stop_signals() -> None:
    """Until somebody listens: a stop that comes while the config is read is heard then, and is no crash."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


class Stop:
    """The one stop request of a supervisor. The first reason counts; further signals change nothing."""

    def __init__(self, grace_seconds: float, max_time_seconds: float | None = None) -> None:
        self.reason: str | None = None
        self.grace_seconds = grace_seconds
        self._requested_at: float | None = None
        self._ends_at = None if max_time_seconds is None else time.monotonic() + max_time_seconds

    def listen(self) -> "Stop":
        for number in STOP_SIGNALS:
            signal.signal(number, self._received)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return self

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)

    def request(self, reason: str) -> None:
        if self.reason is None:
            self.reason, self._requested_at = reason, time.monotonic()

    def requested(self) -> bool:
        """Polled by every loop. `max_time` asks for the stop one grace period before it is over."""
        if self._ends_at is not None and time.monotonic() > self._ends_at - self.grace_seconds:
            self.request("max_time")
        return self.reason is not None

    @property
    def seconds_left(self) -> float:
        """Of the grace period; infinite while no stop was requested."""
        if self._requested_at is None:
            return float("inf")
        return self.grace_seconds - (time.monotonic() - self._requested_at)
