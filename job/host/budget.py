"""What the time before the deadline is spent on: a new checkpoint if step, snapshot and upload fit, else the upload
that is under way, else nothing. Pure arithmetic on what this attempt has durations.
"""

from dataclasses import dataclass
from typing import Literal

RESERVE_SECONDS = 2.0  # for the end record and the report
MARGIN = 1.25  # the last step, snapshot and upload may each take so much longer than the ones before
UPLOAD_SHARE = 0.4  # of the time from the request to the deadline, where no upload was measured yet
OVERDUE = 0.5  # an upload that takes longer than those before is expected to take so much of its own time again

Spend = Literal["checkpoint", "finish_upload", "leave"]


@dataclass(frozen=True)
class Durations:
    """Seconds each, or None where not measured yet. For the uploads take the slowest of the last few."""

    step: float | None = None  # from one boundary to the next
    snapshot: float | None = None  # from the boundary until it lies whole on the disk
    upload: float | None = None  # from there until its commit is written


def decide(
    left_seconds: float, budget_seconds: float, durations: Durations, in_flight_seconds: float | None = None
) -> Spend:
    """The rule, applied once, when the stop is asked for; from then on `ranks_deadline` says when it is too late.

    `left_seconds` until the deadline, `budget_seconds` from the request to the deadline, `in_flight_seconds` since
    the upload under way began (None: none is). What is not measured counts as nothing: a checkpoint is tried.
    """
    to_boundary = MARGIN * (durations.step or 0.0)
    slack = ranks_deadline(left_seconds, budget_seconds, durations, in_flight_seconds)
    if slack > 0 and slack >= to_boundary:
        return "checkpoint"
    if in_flight_seconds is not None and left_seconds > RESERVE_SECONDS:
        return "finish_upload"
    return "leave"


def ranks_deadline(
    left_seconds: float, budget_seconds: float, durations: Durations, in_flight_seconds: float | None = None
) -> float:
    """Seconds from now within which the ranks have to reach a boundary; <= 0: their snapshot would be too late."""
    latest = snapshot_deadline(left_seconds, budget_seconds, durations, in_flight_seconds)
    return latest - MARGIN * (durations.snapshot or 0.0)


def snapshot_deadline(
    left_seconds: float, budget_seconds: float, durations: Durations, in_flight_seconds: float | None = None
) -> float:
    """Seconds from now within which a snapshot has to be whole; <= 0: its upload could not be finished any more.

    Uploads run one at a time: the new one waits for the one under way.
    """
    usable = left_seconds - RESERVE_SECONDS - _upload_seconds(budget_seconds, durations, in_flight_seconds)
    if usable < MARGIN * _seconds_to_come(durations, in_flight_seconds):
        return 0.0
    return usable


def _upload_seconds(budget_seconds: float, durations: Durations, in_flight_seconds: float | None) -> float:
    """To be kept for the new upload; what one under way has taken already, this one may take too."""
    known = [seconds for seconds in (durations.upload, in_flight_seconds) if seconds is not None]
    if durations.upload is None and budget_seconds != float("inf"):
        return max([UPLOAD_SHARE * budget_seconds, *(MARGIN * seconds for seconds in known)])
    return MARGIN * max(known, default=0.0)


def _seconds_to_come(durations: Durations, in_flight_seconds: float | None) -> float:
    """Of the upload under way."""
    if in_flight_seconds is None:
        return 0.0
    return max((durations.upload or 0.0) - in_flight_seconds, OVERDUE * in_flight_seconds)
