"""Notices ranks that get nowhere: no sign of life for a multiple of the time that a step usually takes.

Signs of life are rank 0's events: a step, an evaluation's batch, a sample's token. Where another rank hangs, rank 0
waits for it in the next reduction and falls silent too.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

STARTING_SECONDS = 30 * 60.0  # loading, compiling, the first step; and writing the result at the end
LEAST_SECONDS = 5 * 60.0  # a shared filesystem may well stand still for minutes
USUAL_STEPS = 10  # as long as so many usual steps
WINDOW_STEPS = 50


class Watchdog:
    """`hang_after_seconds`: instead of the multiple, from the first step on."""

    def __init__(self, hang_after_seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_after_seconds, self._clock = hang_after_seconds, clock
        self._steps: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._sign_at, self._stepping = clock(), False

    def saw(self, events: Sequence[dict[str, Any]]) -> None:
        if events:
            self._sign_at = self._clock()
        for event in events:
            if event["kind"] == "step":
                self._stepping = True
                self._steps.append(float(event["seconds"]))
            if event["kind"] == "finishing":
                self._stepping = False

    def limit_seconds(self) -> float:
        """Of silence, from now on."""
        if not self._stepping:
            return max(STARTING_SECONDS, self._hang_after_seconds or 0.0)
        if self._hang_after_seconds is not None:
            return self._hang_after_seconds
        return max(LEAST_SECONDS, USUAL_STEPS * statistics.median(self._steps))

    def overdue(self) -> str | None:
        """What is wrong, once the limit is passed."""
        silent = self._clock() - self._sign_at
        if silent <= self.limit_seconds():
            return None
        usual = f"; a step usually takes {statistics.median(self._steps):.2g} s" if self._steps else ""
        return f"no sign of life from the ranks for {silent:.0f} s{usual}"
