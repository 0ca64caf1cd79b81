"""What an attempt measures of itself: how long a step, a snapshot and an upload take. Medians of the latest."""

import statistics
from collections import deque
from collections.abc import Sequence
from typing import Any

from job.host.budget import Durations

WINDOW_STEPS = 50
WINDOW_CHECKPOINTS = 5


class Measured:
    """Fed with the ranks' events and the committer's uploads; None where nothing was measured yet."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._blocked, self._written, self._uploads = (deque[float](maxlen=WINDOW_CHECKPOINTS) for _ in range(3))
        self.trial: dict[str, Any] | None = None  # of the fullest micro-batch, once it was seen to fit

    def saw(self, events: Sequence[dict[str, Any]]) -> None:
        for event in events:
            if event["kind"] == "step":
                self._steps.append(float(event["seconds"]))
            elif event["kind"] == "trial":
                self.trial = event
            elif event["kind"] == "snapshot":
                self._blocked.append(float(event["blocked_seconds"]))
            elif event["kind"] == "snapshot_written":
                self._written.append(float(event["seconds"]))

    def uploaded(self, seconds: float) -> None:
        """From the snapshot on disk to its commit record."""
        self._uploads.append(seconds)

    @property
    def step_seconds(self) -> float | None:
        return _median(self._steps)

    @property
    def blocked_seconds(self) -> float | None:
        """How long the training loop stands still for a snapshot."""
        return _median(self._blocked)

    @property
    def snapshot_seconds(self) -> float | None:
        """From the step boundary to the snapshot on disk."""
        blocked, written = _median(self._blocked), _median(self._written)
        return None if blocked is None or written is None else blocked + written

    @property
    def upload_seconds(self) -> float | None:
        return _median(self._uploads)

    @property
    def stored_seconds(self) -> float | None:
        """From the end of the blocking until the commit stands: serializing, writing, hashing, uploading."""
        uploaded = _median(self._uploads)
        return None if uploaded is None else (_median(self._written) or 0.0) + uploaded

    def durations(self) -> Durations:
        """What a stop has to reckon with: usual steps and snapshots, and the slowest of the latest uploads."""
        return Durations(self.step_seconds, self.snapshot_seconds, max(self._uploads, default=None))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
