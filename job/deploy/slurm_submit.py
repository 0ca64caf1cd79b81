"""Hand a script to sbatch, and say how to follow the job that came of it."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job.deploy.slurm import Batch, script
from job.errors import ConfigError, HardwareError

SLURM_SECONDS = 120.0  # its commands themselves wait for a busy controller
SITES, OTHERS = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"), re.compile("SLURM_|SBATCH_")
AWAY = re.compile(r"unable to contact|connection refused|timed out|temporarily unable|establish a configuration", re.I)


@dataclass(frozen=True)
class Submitted:
    """A job in the queue, and where its log will be; of an array with * for a task's number."""

    number: str
    log: str


def submit(batch: Batch) -> Submitted:
    """Raises: HardwareError where there is no sbatch, or no controller answers it; ConfigError where it refuses."""
    said = _slurm(["sbatch", "--parsable"], script(batch))
    words = "; ".join(re.sub(r"^sbatch: (error: )?", "", line) for line in said.stderr.splitlines())
    if said.returncode != 0:
        kind = HardwareError if AWAY.search(words) else ConfigError
        what = "no Slurm controller answers" if kind is HardwareError else "sbatch refused the job"
        raise kind(f"{what}: {words or f'exit code {said.returncode}'}")
    number = said.stdout.strip().rpartition("\n")[2].partition(";")[0]
    if not number.isdigit():
        raise ConfigError(f"sbatch told no job's number: {said.stdout.strip() or 'nothing'}; see squeue --me")
    return Submitted(number, _log(batch, number))


def following(batch: Batch, job: Submitted, run: str) -> list[str]:
    """What a person types next."""
    ask = [f"once it is done:    sft-job ask {shlex.quote(run)} 'Who are you?'"]
    return [
        f"job {job.number} ({batch.job_name}) is in the queue",
        f"where it stands:    squeue -j {job.number}",
        f"what it says:       tail -F {job.log if '*' in job.log else shlex.quote(job.log)}",
        f"stop, go on later:  scancel --batch --signal=USR1 {job.number}",
        f"end it for good:    scancel {job.number}",
        *(ask if batch.array is None else []),
    ]


def _log(batch: Batch, number: str) -> str:
    """Slurm's own word for it; of an array, whose tasks have one each, from the pattern."""
    if batch.array is None:
        shown = _slurm(["scontrol", "show", "job", number])
        if found := re.search(r"^\s*StdOut=(.+)$", shown.stdout, re.MULTILINE):
            return found[1]
    name = batch.output
    for pattern, value in (("%x", batch.job_name), ("%A", number), ("%a", "*"), ("%j", "*" if batch.array else number)):
        name = name.replace(pattern, value)
    return str(Path.cwd() / name)


def _slurm(command: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Variables of a job that this is typed in would come along into the new one; SBATCH_PARTITION and the like would
    win over what was asked for."""
    try:
        return subprocess.run(
            command,
            input=stdin,
            env={name: value for name, value in os.environ.items() if name in SITES or not OTHERS.match(name)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SLURM_SECONDS,
        )
    except FileNotFoundError as error:
        raise HardwareError(f"there is no {command[0]} here; submit on a login node of the cluster") from error
    except subprocess.TimeoutExpired as error:
        raise HardwareError(
            f"{command[0]} did not answer within {SLURM_SECONDS:.0f} s; see squeue, then try again"
        ) from error
