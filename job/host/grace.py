"""How long a stop may take: as the config says, else as whoever submitted this job knows its scheduler waits."""

from collections.abc import Mapping

from job.config import RunConfig
from job.config.values import duration_seconds
from job.errors import ConfigError

GRACE = "SFT_JOB_GRACE"


def grace_seconds(config: RunConfig, environment: Mapping[str, str]) -> float:
    """Between a stop request and the kill. Raises: ConfigError for no duration, or one that leaves `max_time` none."""
    told = environment.get(GRACE, "").strip()
    if config.grace != "auto" or not told:
        return config.grace_seconds
    try:
        seconds = duration_seconds(f"{told}s" if told.isdigit() else told)
    except ValueError as error:
        raise ConfigError(f"{GRACE} is {told!r}: give seconds, or a duration like 120s ({error})") from error
    limit = config.max_time_seconds
    if limit is not None and limit <= seconds:
        raise ConfigError(
            f"max_time: {config.max_time} is over before a stop, which takes {GRACE} ({seconds:.0f}s); make it longer"
        )
    return seconds
