"""How often a checkpoint is due where the config leaves it open: Young and Daly's interval, from what was measured."""

from collections.abc import Sequence

from job.config import RunConfig
from job.measured import Measured
from job.report.report import Report
from job.report.wording import counted, spoken_seconds
from job.rundir import RunDir
from job.storage.history import Past
from job.storage.interval import checkpoint_interval, expected_between_interruptions

FIRST_SECONDS = 60.0  # the first checkpoint comes early: it finds out what one costs, and whether it can be stored
WORTH_TELLING = 1.25  # times more or less than what the log said last


class Pacer:
    """Tells the ranks the interval, and the log when it changes much."""

    def __init__(self, config: RunConfig, local: RunDir, past: Sequence[Past], report: Report) -> None:
        self._auto, self._local, self._report = config.checkpoint.every == "auto", local, report
        lived = [one for one in past if one.seconds > 0]
        self._interruptions = sum(one.interrupted for one in lived)
        self._between_seconds = expected_between_interruptions([one.seconds for one in lived], self._interruptions)
        self._told_seconds: float | None = None

    def update(self, measured: Measured) -> None:
        """After each commit, and before the first."""
        if not self._auto:
            return
        blocked, stored = measured.blocked_seconds, measured.stored_seconds
        if blocked is None or stored is None:
            self._local.set_checkpoint_seconds(FIRST_SECONDS)
            return
        seconds = checkpoint_interval(blocked, stored, self._between_seconds)
        self._local.set_checkpoint_seconds(seconds)
        told = self._told_seconds
        if told is None or not told / WORTH_TELLING < seconds < told * WORTH_TELLING:
            self._told_seconds = seconds
            learned = (
                f"learned from {counted(self._interruptions, 'interruption')}" if self._interruptions else "assumed"
            )
            self._report.message(
                f"a checkpoint every {spoken_seconds(seconds)}: it blocks training for {blocked:.2f} s, is stored in "
                f"{stored:.1f} s, and {spoken_seconds(self._between_seconds)} between interruptions are {learned}"
            )
