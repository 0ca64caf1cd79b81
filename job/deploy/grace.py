"""How long a stop may take in a job that is rendered: what the scheduler is asked to wait follows from it."""

from math import ceil

from job.config import RunConfig

GRACE_SECONDS = 120  # of a run that names none: enough for a step, a snapshot and an upload of most


def grace_seconds(config: RunConfig) -> int:
    """Whole seconds, as schedulers count them; never fewer than the config says."""
    return GRACE_SECONDS if config.grace == "auto" else ceil(config.grace_seconds)
