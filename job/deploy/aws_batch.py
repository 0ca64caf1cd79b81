"""AWS Batch: what RegisterJobDefinition and SubmitJob are given. Spot is the compute environment's, not the job's.

Source: AWS Batch API reference, RegisterJobDefinition, SubmitJob, EvaluateOnExit.
"""

from itertools import groupby
from typing import Any

from job.deploy.cloud_options import of_form, refuse_values
from job.deploy.cloud_values import Containers, codes, refuse_taken, words
from job.deploy.handed_over import NAME, HandedOver, job_name
from job.deploy.kubernetes_options import refuse_shared_memory
from job.deploy.kubernetes_values import STATE
from job.deploy.quantities import whole_mib
from job.deploy.rules import Rule
from job.errors import ConfigError

ATTEMPTS = 10  # the most that Batch takes; it counts interruptions too
CONDITIONS = 5  # likewise
QUEUE = r"[A-Za-z0-9][\w-]{0,127}|arn:aws[\w-]*:batch:[\w-]+:\d{12}:job-queue/[\w-]+"
ROLE = r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+"
SET = r"SFT_JOB_HOME|AWS_BATCH\w*"  # nothing but the state's volume can be written to; and Batch's own

Object = dict[str, Any]


def requests(
    run: HandedOver, containers: Containers, queue: str, job_role: str | None, execution_role: str | None
) -> Object:
    """{"registerJobDefinition": ..., "submitJob": ...}: the parameters of both calls.

    Raises: ConfigError where a name or an ARN is none, and where secrets are named and no role that may read them.
    """
    of_form("--queue", queue, QUEUE, "a job queue's name or ARN, like gpu")
    for option, role in {"--job-role": job_role, "--execution-role": execution_role}.items():
        of_form(option, role, ROLE, "a role's ARN, like arn:aws:iam::111122223333:role/sft-job")
    refuse_shared_memory(containers.shared_memory, containers.memory)
    refuse_taken(containers, SET)
    if containers.secrets and not execution_role:
        raise ConfigError("--secret needs --execution-role: the role that Batch reads the secrets with")
    refuse_values(containers.secrets, r"arn:aws[\w-]*:(secretsmanager|ssm):.+", "arn:aws:secretsmanager:...")
    name = job_name(run, containers)
    container = _container(run, containers, job_role, execution_role)
    definition: Object = {
        "jobDefinitionName": name,
        "type": "container" if containers.nodes == 1 else "multinode",
        "platformCapabilities": ["EC2"],
        "retryStrategy": {"attempts": ATTEMPTS, "evaluateOnExit": evaluate_on_exit()},
        "propagateTags": True,
        "tags": {"app": NAME},
    }
    if containers.nodes == 1:
        definition["containerProperties"] = container
    else:
        everywhere = {"targetNodes": "0:", "container": container}
        definition["nodeProperties"] = {
            "numNodes": containers.nodes,
            "mainNode": 0,
            "nodeRangeProperties": [everywhere],
        }
    return {
        "registerJobDefinition": definition,
        "submitJob": {"jobName": name, "jobQueue": queue, "jobDefinition": name},
    }


def evaluate_on_exit() -> list[Object]:
    """The first that matches holds, and what matches none is run again: a reclaimed host, a code that is no one's.

    Five conditions hold the table because a pattern may end with *: of the codes that begin alike, those that are run
    again come first, and all others of them end the job. So do 7, 72 and 79, which no sft-job leaves with.
    """
    never, again = codes(Rule.NEVER), codes(Rule.AGAIN, Rule.COUNTED, Rule.ELSEWHERE)
    found: list[Object] = []
    for first, group in groupby(never, key=lambda code: str(code)[0]):
        alike = [str(code) for code in group]
        kept = [str(code) for code in again if str(code).startswith(first)]
        if len(alike) <= len(kept) + 1:
            found += [{"onExitCode": code, "action": "EXIT"} for code in alike]
        else:
            found += [{"onExitCode": code, "action": "RETRY"} for code in kept]
            found.append({"onExitCode": f"{first}*", "action": "EXIT"})
    assert len(found) <= CONDITIONS, found
    return found


def _container(run: HandedOver, containers: Containers, job_role: str | None, execution_role: str | None) -> Object:
    asked = {"VCPU": containers.cpus, "MEMORY": whole_mib(containers.memory), "GPU": containers.gpus_per_node}
    container: Object = {
        "image": containers.image,
        "command": words(run),
        "environment": [{"name": name, "value": value} for name, value in containers.environment.items()],
        "resourceRequirements": [{"type": kind, "value": str(count)} for kind, count in asked.items() if count],
        "linuxParameters": {"sharedMemorySize": whole_mib(containers.shared_memory)},
        "readonlyRootFilesystem": True,
        # Without a path on the host Docker makes volumes of the container's own, with the image's owners.
        "volumes": [{"name": "state", "host": {}}, {"name": "temporary", "host": {}}],
        "mountPoints": [
            {"sourceVolume": "state", "containerPath": STATE, "readOnly": False},
            {"sourceVolume": "temporary", "containerPath": "/tmp", "readOnly": False},
        ],
    }
    if containers.secrets:
        container["secrets"] = [{"name": name, "valueFrom": place} for name, place in containers.secrets.items()]
    if job_role:
        container["jobRoleArn"] = job_role
    if execution_role:
        container["executionRoleArn"] = execution_role
    return container
