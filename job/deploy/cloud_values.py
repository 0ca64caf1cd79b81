"""What may be chosen for a run on a cloud's batch service, as one value; and what all of them are given alike."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from job.deploy.credentials import faults_of_text
from job.deploy.handed_over import HandedOver
from job.deploy.quantities import quantity
from job.deploy.rules import RULES, Rule
from job.errors import ConfigError

CONFIG_VARIABLE = "SFT_JOB_CONFIG"  # holds the text of RUN.yaml: these services hand over no files
CONFIG_BYTES = 16 << 10  # AWS Batch takes 24 KiB for all of a job's container


@dataclass(frozen=True)
class Containers:
    """Of one run. Sizes are Kubernetes' quantities; `secrets`: a variable's name, and where its value lies."""

    image: str
    nodes: int = 1
    gpus_per_node: int = 1
    cpus: int = 8
    memory: str = "32Gi"
    shared_memory: str = "8Gi"
    disk: str = "100Gi"
    spot: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


def checked(run: HandedOver, containers: Containers) -> Containers:
    """The same, with the variable that holds the config. Raises: ConfigError."""
    for field_name, option in {"memory": "--memory", "shared_memory": "--shm-size", "disk": "--disk"}.items():
        size = quantity(getattr(containers, field_name))
        if size is None or size <= 0:
            raise ConfigError(f"{option} is {getattr(containers, field_name)!r}: give a size like 32Gi")
    for name, value in containers.environment.items():
        if fault := next(faults_of_text(value, name), None):
            raise ConfigError(f"--env {name} {fault}: --secret {name}=WHERE")
    for text in (run.text or "", *run.sets):
        if fault := next(faults_of_text(text), None):
            raise ConfigError(f"{run.argument}: {fault}: --secret NAME=WHERE")
    if len((run.text or "").encode()) > CONFIG_BYTES:
        raise ConfigError(
            f"{run.argument} has more than {CONFIG_BYTES >> 10} KiB, which such a service does not hand over: shorten "
            "it, or begin the run elsewhere and give its run folder"
        )
    config = {CONFIG_VARIABLE: run.text} if run.text is not None else {}
    return replace(containers, environment={**config, **containers.environment})


def refuse_values(secrets: Mapping[str, str], form: str, example: str) -> None:
    """A secret's own value, typed where its place belongs, would be printed. Raises: ConfigError, not repeating it."""
    for name, place in secrets.items():
        if not re.fullmatch(form, place):
            raise ConfigError(
                f"--secret {name}: give where it lies, like {name}={example}; its value never stands here"
            )


def words(run: HandedOver) -> list[str]:
    """The arguments of sft-job there."""
    return run.words(f"env:{CONFIG_VARIABLE}")


def codes(*rules: Rule) -> list[int]:
    """The exit codes that these rules are for, in rising order."""
    return sorted(int(code) for code, rule in RULES.items() if rule in rules)
