"""The batch script as a value: the #SBATCH lines and a few figures change, the rest is fixed text (slurm.sbatch)."""

import re
import shlex
from dataclasses import dataclass
from importlib.resources import files

from job.deploy.grace import GRACE_SECONDS
from job.deploy.rules import ANY_OTHER, RULES, Rule
from job.deploy.slurm_extra import INSTEAD, OURS, option_name
from job.errors import ExitCode

SLACK_SECONDS = 60  # by which Slurm's signal may miss its time: man sbatch, --signal
WAIT_SECONDS = 660  # for the last node once the first has left: as long as a lost node is waited for, and a minute
EARLY_STOPS = 10  # lives that were stopped while sft-job was being loaded: so many are no accident
VARIABLES = {
    "SFT_JOB_RUNTIME": "where sft-job is: venv:/path, module:name[,name], apptainer:image.sif, pyxis:image,\n"
    "oci:/bundle; on PATH where it is empty",
    "SFT_JOB_BIND": "further folders that a container sees, with commas between them",
    "SFT_JOB_SETS": "a file; line N has options of sft-job run for task N of an array",
    "SFT_JOB_RETRIES": "how often a failure that may pass is tried again (3)",
    "SFT_JOB_SBATCH": "options of sbatch for the job that follows where requeueing is refused",
    "SFT_JOB_LEADER": "where the first node is reached: %N stands for its name, %A for the address\n"
    "that Slurm has of it, like %N.ib or %A; its name where it is empty",
    "SFT_JOB_GRACE": "seconds that the last checkpoint may take; --signal has a minute more",
}


@dataclass(frozen=True)
class Batch:
    """None: no such line. `extra`: options of sbatch as they are, which win over lines that are always there.

    `runtime`, `bind` and `sets` are values of SFT_JOB_RUNTIME, SFT_JOB_BIND and SFT_JOB_SETS; `arguments` of `sft-job
    run`, before those that the script is given.
    """

    job_name: str = "sft-job"
    nodes: str = "1"
    cpus_per_task: int = 8
    gpus_per_node: str | None = "1"
    gres: str | None = None
    mem: str | None = None
    time: str = "04:00:00"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array: str | None = None
    output: str = "%x-%j.out"
    extra: tuple[str, ...] = ()
    grace_seconds: int = GRACE_SECONDS
    wait_seconds: int = WAIT_SECONDS
    runtime: str | None = None
    bind: str | None = None
    sets: str | None = None
    arguments: tuple[str, ...] = ()

    @property
    def lead_seconds(self) -> int:
        """How long before the job's end Slurm is asked for a signal."""
        return self.grace_seconds + SLACK_SECONDS


def script(batch: Batch) -> str:
    """The whole text."""
    slots = {
        "HEAD": "\n".join(_head(batch)),
        "VARIABLES": "\n".join(_variables()),
        "SETTINGS": "".join(_settings(batch)),
        "ARGUMENTS": "".join(f"{shlex.quote(word)} " for word in batch.arguments),
        "GRACE": str(batch.grace_seconds),
        "WAIT": str(batch.wait_seconds),
        "RULES": "\n".join(_rules()),
        "EARLY": str(EARLY_STOPS),
        "CONFIG": str(int(ExitCode.CONFIG)),
        "FENCED": str(int(ExitCode.FENCED)),
        "BUSY": str(int(ExitCode.BUSY)),
        "STOPPED": str(int(ExitCode.STOPPED)),
        "CRASHED": str(int(ExitCode.CRASHED)),
    }
    text = files(__package__).joinpath("slurm.sbatch").read_text(encoding="utf-8")
    return re.sub("@([A-Z]+)@", lambda slot: slots[slot[1]], text)


def _head(batch: Batch) -> list[str]:
    extra = {option_name(option) for option in batch.extra}
    instead = {INSTEAD.get(name) for name in extra}
    given = {name: getattr(batch, name.replace("-", "_")) for name in OURS if name not in instead}
    named = [f"--{name}={value}" for name, value in given.items() if value is not None]
    own = {name.removeprefix("no-") for name in extra}
    always = ["--ntasks-per-node=1", f"--signal=B:USR1@{batch.lead_seconds}", "--requeue", "--open-mode=append"]
    always = [option for option in always if option_name(option) not in own]
    return [f"#SBATCH {option}" for option in [*named, *always, *batch.extra]]


def _variables() -> list[str]:
    indented = ((name, meaning.replace("\n", "\n#" + " " * 20)) for name, meaning in VARIABLES.items())
    return [f"#   {name:<15}  {meaning}" for name, meaning in indented]


def _settings(batch: Batch) -> list[str]:
    given = {"SFT_JOB_RUNTIME": batch.runtime, "SFT_JOB_BIND": batch.bind, "SFT_JOB_SETS": batch.sets}
    return [f"export {name}={shlex.quote(value)}\n" for name, value in given.items() if value is not None]


def _rules() -> list[str]:
    """The branches of the script's `case`."""
    acts = {
        Rule.DONE: 'leave "the run is finished"',
        Rule.AGAIN: "ours; stopped",
        Rule.COUNTED: "ours; counted",
        Rule.ELSEWHERE: "ours; elsewhere",
        Rule.NEVER: 'leave "not run again: $reason"',
    }
    named = [(str(int(code)), code.name.lower(), rule) for code, rule in RULES.items()]
    named.append(("*", "other", ANY_OTHER))
    return [f"    {code}) name='{name}'; {acts[rule]} ;;" for code, name, rule in named]
