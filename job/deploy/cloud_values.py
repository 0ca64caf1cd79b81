"""What may be chosen for a run on a cloud's batch service, as one value; and what all of them are given alike."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from job.deploy.cloud_options import of_form, refuse_far_off, refuse_size, without_advice
from job.deploy.credentials import faults_of_text
from job.deploy.handed_over import HandedOver
from job.deploy.kubernetes_options import image_reference
from job.deploy.quantities import GIB
from job.deploy.rules import RULES, Rule
from job.errors import ConfigError

CONFIG_VARIABLE = "SFT_JOB_CONFIG"  # holds the text of RUN.yaml: these services hand over no files
CONFIG_BYTES = 16 << 10  # AWS Batch takes 24 KiB for all of a job's container
TAKEN = f"{CONFIG_VARIABLE}|SFT_JOB_(NODES|NODE_RANK|LEADER)"  # which nodes there are, each service says
IN_A_SECRET = "--secret NAME=WHERE"


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


def checked(run: HandedOver, containers: Containers, instead: str = IN_A_SECRET) -> Containers:
    """The same, with the variable that holds the config. `instead`: how this service is given a credential.

    Raises: ConfigError, not repeating what may be a credential.
    """
    of_form("--image", containers.image, r"\S+", "an image's name, by tag or by digest")
    image_reference(containers.image)
    refuse_far_off("--nodes", containers.nodes)
    refuse_far_off("--gpus-per-node", containers.gpus_per_node)
    refuse_far_off("--cpus", containers.cpus)
    refuse_size("--memory", containers.memory, GIB, "32Gi")
    refuse_size("--shm-size", containers.shared_memory, GIB // 64, "8Gi")
    refuse_size("--disk", containers.disk, 20 * GIB, "100Gi")  # the system and the image, unpacked
    for name, value in containers.environment.items():
        if fault := next(faults_of_text(value, name), None):
            raise ConfigError(f"--env {name} {without_advice(fault)}: {instead.replace('NAME', name)}")
    refuse_taken(containers, TAKEN)
    if both := sorted(containers.environment.keys() & containers.secrets.keys()):
        raise ConfigError(f"--env and --secret both name {both[0]}: give it once")
    for text in (run.text or "", *run.sets):
        if fault := next(faults_of_text(text), None):
            raise ConfigError(f"{run.argument}: {without_advice(fault)}: {instead}")
    if len((run.text or "").encode()) > CONFIG_BYTES:
        raise ConfigError(
            f"{run.argument} has more than {CONFIG_BYTES >> 10} KiB, which such a service does not hand over: shorten "
            "it, or begin the run elsewhere and give its run folder"
        )
    config = {CONFIG_VARIABLE: run.text} if run.text is not None else {}
    return replace(containers, environment={**config, **containers.environment})


def refuse_taken(containers: Containers, form: str) -> None:
    """Variables that what is rendered, or the service, sets. Raises: ConfigError."""
    for option, given in {"--env": containers.environment, "--secret": containers.secrets}.items():
        for name in given:
            if re.fullmatch(form, name):
                raise ConfigError(f"{option} {name}: that variable is set for the container already; leave it out")


def words(run: HandedOver) -> list[str]:
    """The arguments of sft-job there."""
    return run.words(f"env:{CONFIG_VARIABLE}")


def codes(*rules: Rule) -> list[int]:
    """The exit codes that these rules are for, in rising order."""
    return sorted(int(code) for code, rule in RULES.items() if rule in rules)
