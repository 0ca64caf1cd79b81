"""How fast training goes, from its latest steps: the time left, seconds per step, tokens per second."""

from collections import deque
from collections.abc import Mapping
from typing import Any

_WINDOW_STEPS = 50


class Pace:
    """A moving window over the step events of this attempt."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW_STEPS)  # (seconds, tokens)

    def add(self, event: Mapping[str, Any]) -> None:
        self._recent.append((float(event.get("seconds") or 0.0), float(event.get("tokens") or 0.0)))

    @property
    def seconds_per_step(self) -> float:
        """0 before the first step."""
        return sum(seconds for seconds, _ in self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def tokens_per_second(self) -> float:
        """0 where it is not known."""
        seconds = sum(seconds for seconds, _ in self._recent)
        return sum(tokens for _, tokens in self._recent) / seconds if seconds else 0.0
