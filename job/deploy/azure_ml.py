"""Azure Machine Learning: the command job that `az ml job create --file` takes.

It knows no rules for exit codes: a job whose low-priority machine is taken away is queued again by the service, and one
that left with 75 goes on when it is created again. Source: Azure ML CLI (v2), command job YAML schema.
"""

import shlex
from typing import Any

from job.deploy.cloud_values import Containers, words
from job.deploy.handed_over import NAME, HandedOver, job_name
from job.deploy.quantities import whole_mib
from job.errors import ConfigError

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"

Object = dict[str, Any]


def command_job(
    run: HandedOver, containers: Containers, compute: str | None, instance_type: str | None, credentials: str | None
) -> Object:
    """`compute`: a cluster; without it the job is serverless, on machines of `instance_type`. `credentials`: the asset,
    or the path in a datastore, of a file in the form of ~/.aws/credentials.

    Raises: ConfigError.
    """
    if (compute is None) == (instance_type is None):
        raise ConfigError("give --compute, a cluster's name, or --instance-type for a serverless job, and not both")
    if containers.spot and compute:
        raise ConfigError("--spot is of a serverless job: a cluster has its own priority, set where it is made")
    if containers.secrets:
        raise ConfigError("Azure ML hands no secrets to a job: --credentials names a file in a datastore")
    resources: Object = {"instance_count": containers.nodes, "shm_size": f"{whole_mib(containers.shared_memory)}m"}
    if instance_type:
        resources["instance_type"] = instance_type
    reader = "AWS_SHARED_CREDENTIALS_FILE=${{inputs.credentials}} " if credentials else ""
    job: Object = {
        "$schema": SCHEMA,
        "type": "command",
        "display_name": job_name(run, containers),
        "experiment_name": NAME,
        "environment": {"image": containers.image},
        "environment_variables": dict(containers.environment),
        # A shell reads it, and is replaced: signals reach sft-job.
        "command": f"{reader}exec tini -- {shlex.join([NAME, *words(run)])}",
        "resources": resources,
    }
    if compute:
        job["compute"] = f"azureml:{compute}"
    if credentials:
        job["inputs"] = {"credentials": {"type": "uri_file", "path": credentials, "mode": "ro_mount"}}
    if containers.spot:
        job["queue_settings"] = {"job_tier": "Spot"}
    if containers.nodes > 1:  # the service then says which node is which, in torchrun's variables
        job["distribution"] = {"type": "pytorch", "process_count_per_instance": 1}
    return job
