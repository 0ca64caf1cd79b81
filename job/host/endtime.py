"""When the scheduler ends this job, as far as it can be known: a variable first, then Slurm's own tools.

Kubernetes does not tell a pod its deadline, nor does a cloud batch queue: `SFT_JOB_END_TIME` says it where it is known.
"""

import re
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

from job.errors import ConfigError

END_TIME = "SFT_JOB_END_TIME"
SQUEUE_SECONDS = 5.0  # squeue answers in milliseconds, or its controller is busy or gone
TIME_LEFT = re.compile(r"(?:(?:(?P<days>\d+)-)?(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+)")


def job_seconds_left(environment: Mapping[str, str]) -> float | None:
    """Seconds until the job's end, which may have passed (<= 0); None where none is known.

    Raises: ConfigError when SFT_JOB_END_TIME is no time.
    """
    if told := environment.get(END_TIME, "").strip():
        return _told_end(told) - time.time()
    if not environment.get("SLURM_JOB_ID", "").strip():
        return None
    end = _unix_seconds(environment.get("SLURM_JOB_END_TIME", "").strip())
    left = None if end is None else end - time.time()
    if left is not None and left > 0:
        return left
    return asked_again(environment)  # an older Slurm, or the limit was raised since the job began


def asked_again(environment: Mapping[str, str]) -> float | None:
    """As Slurm has it now, None where it says nothing: a limit may be raised meanwhile, and no variable says so.

    Preemption and a maintenance that was not announced as the job's end are not in it.
    """
    job_id = environment.get("SLURM_JOB_ID", "").strip()
    told = environment.get(END_TIME, "").strip()
    return _ask_squeue(job_id, environment) if job_id and not told else None


def seconds_of(time_left: str) -> float | None:
    """squeue's `[[days-]hours:]minutes:seconds` (man squeue, %L) in seconds.

    None for UNLIMITED, NOT_SET, INVALID (the clocks of node and controller disagree) and whatever else is no time.
    """
    match = TIME_LEFT.fullmatch(time_left.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _told_end(text: str) -> float:
    if (seconds := _unix_seconds(text)) is not None:
        return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ConfigError(
            f"{END_TIME} is {text!r}: give Unix seconds, or an ISO time with its zone like 2030-01-31T18:00:00Z"
        )
    return moment.timestamp()


def _unix_seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,12}(\.\d+)?", text) else None


def _ask_squeue(job_id: str, environment: Mapping[str, str]) -> float | None:
    """%A is each job's own number: `-j` of an array's number lists all its tasks. A person's own settings for squeue,
    like a partition, would hide it."""
    try:
        said = subprocess.run(
            ["squeue", "-h", "-j", job_id, "-o", "%A %L"],
            env={name: value for name, value in environment.items() if not name.startswith("SQUEUE_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SQUEUE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.split() for line in said.stdout.splitlines())
    own = [row[1] for row in rows if len(row) == 2 and row[0] == job_id]
    return seconds_of(own[0]) if said.returncode == 0 and own else None
