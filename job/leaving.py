"""What a stop request still allows on the way in, and on the way out."""

from collections.abc import Callable

from job.errors import Stopped
from job.host.preemption import Stop

LEAVE_SECONDS = 2.0  # of the grace period is left for the end record and the report


def refuse_to_begin(stop: Stop) -> None:
    """Starting ranks takes longer than a grace period may last. Raises: Stopped."""
    if stop.requested():
        raise Stopped(f"stopped by {stop.reason} before the next step of this attempt; run the same command again")


def lasting(stop: Stop) -> Callable[[], bool]:
    """When writing on the way out has to end too."""
    return lambda: stop.seconds_left < LEAVE_SECONDS
