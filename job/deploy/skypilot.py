"""SkyPilot: the task that `sky jobs launch` takes. The image runs in the machine's own Docker.

75 is run again as often as it comes, all other failures a few times: SkyPilot cannot be told what not to run again.
Source: SkyPilot, task YAML specification, and sky/utils/schemas.py.
"""

import shlex
from typing import Any

from job.deploy.cloud_options import of_form, refuse_idle_kind
from job.deploy.cloud_values import Containers, codes, words
from job.deploy.handed_over import HandedOver, job_name
from job.deploy.quantities import whole_gib
from job.deploy.rules import Rule
from job.errors import ConfigError

RESTARTS = 3
KIND = r"[A-Za-z][\w.-]*"
INFRA = r"[\w*.-]+(/[^\s/]+)*"  # a Kubernetes context has signs of its own

Object = dict[str, Any]


def task(run: HandedOver, containers: Containers, accelerator: str | None, infra: str | None) -> Object:
    """`accelerator`: a kind of GPU, like H100. Raises: ConfigError."""
    of_form("--accelerator", accelerator, KIND, "a kind of GPU alone, like H100: --gpus-per-node says how many")
    of_form("--infra", infra, INFRA, "a cloud, or a cloud and its region, like aws/us-east-1")
    if containers.gpus_per_node and accelerator is None:
        raise ConfigError("--accelerator says which kind of GPU, like H100; or --gpus-per-node 0")
    refuse_idle_kind(accelerator, containers.gpus_per_node)
    resources: Object = {
        "cpus": f"{containers.cpus}+",
        "memory": f"{whole_gib(containers.memory)}+",
        "disk_size": whole_gib(containers.disk),
        "use_spot": containers.spot,
        "job_recovery": {"max_restarts_on_errors": RESTARTS, "recover_on_exit_codes": codes(Rule.AGAIN)},
    }
    if accelerator:
        resources["accelerators"] = f"{accelerator}:{containers.gpus_per_node}"
    if infra:
        resources["infra"] = infra
    found: Object = {
        "name": job_name(run, containers),
        "num_nodes": containers.nodes,
        "resources": resources,
        "envs": dict(containers.environment),
        "run": _script(run, containers),
    }
    if containers.secrets:  # their values are given to sky: --secret NAME
        found["secrets"] = dict.fromkeys(containers.secrets)
    return found


def _script(run: HandedOver, containers: Containers) -> str:
    """Of each node. It ends in docker itself, which passes signals and the exit code on."""
    options = ["--rm", "--network host", "--ipc host", "--stop-timeout 150"]
    if containers.gpus_per_node:
        options.append("--gpus all")
    options += [f"--env {name}" for name in (*containers.environment, *containers.secrets)]
    if containers.nodes > 1:
        options += [
            '--env SFT_JOB_NODES="$SKYPILOT_NUM_NODES"',
            '--env SFT_JOB_NODE_RANK="$SKYPILOT_NODE_RANK"',
            '--env SFT_JOB_LEADER="${SKYPILOT_NODE_IPS%%[[:space:]]*}"',
        ]
    lines = [f"exec $docker run {options[0]}", *options[1:], shlex.quote(containers.image), shlex.join(words(run))]
    found = 'docker=docker; docker info >/dev/null 2>&1 || docker="sudo --preserve-env docker"\n'
    return found + " \\\n  ".join(lines) + "\n"
