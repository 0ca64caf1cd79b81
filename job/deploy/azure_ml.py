"""Azure Machine Learning: the command job that `az ml job create --file` takes.

It knows no rules for exit codes: a job whose low-priority machine is taken away is queued again by the service, and one
that left with 75 goes on when it is created again. Source: Azure ML CLI (v2), command job YAML schema.
"""

import shlex
from typing import Any

from job.deploy.cloud_options import of_form
from job.deploy.cloud_values import Containers, refuse_taken, words
from job.deploy.handed_over import NAME, HandedOver, job_name
from job.deploy.quantities import whole_mib
from job.errors import ConfigError

SCHEMA = "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json"
CLUSTER, MACHINE = "[A-Za-z][A-Za-z0-9-]*", r"[A-Za-z][\w.-]*"
ASSET = r"azureml:[A-Za-z0-9][\w.-]*[:@][\w.-]+|azureml://[\w.~%/@:-]+"
IN_A_FILE = (
    "Azure ML hands no secrets to a job; a store's keys go into a file like ~/.aws/credentials in a datastore: "
    "--credentials azureml:ASSET:1"
)

Object = dict[str, Any]


def command_job(
    run: HandedOver, containers: Containers, compute: str | None, instance_type: str | None, credentials: str | None
) -> Object:
    """`compute`: a cluster; without it the job is serverless, on machines of `instance_type`. `credentials`: the asset,
    or the path in a datastore, of a file in the form of ~/.aws/credentials.

    Raises: ConfigError.
    """
    of_form("--compute", compute, CLUSTER, "a cluster's name, like gpu-cluster")
    of_form("--instance-type", instance_type, MACHINE, "a size of machine, like Standard_NC40ads_H100_v5")
    of_form(
        "--credentials", credentials, ASSET, "an asset, like azureml:aws-credentials:1, or azureml://datastores/..."
    )
    if (compute is None) == (instance_type is None):
        raise ConfigError("give --compute, a cluster's name, or --instance-type for a serverless job, and not both")
    if containers.spot and compute:
        raise ConfigError("--spot is of a serverless job: a cluster has its own priority, set where it is made")
    if containers.secrets:
        raise ConfigError(IN_A_FILE)
    if credentials:
        refuse_taken(containers, "AWS_SHARED_CREDENTIALS_FILE")
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
