"""Google Cloud Batch: the Job that `gcloud batch jobs submit --config` takes.

Source: google/cloud/batch/v1, job.proto and task.proto.
"""

from typing import Any

from job.deploy.cloud_options import of_form, refuse_idle_kind, refuse_values
from job.deploy.cloud_values import Containers, codes, refuse_taken, words
from job.deploy.handed_over import NAME, HandedOver
from job.deploy.kubernetes_options import refuse_shared_memory
from job.deploy.quantities import whole_gib, whole_mib
from job.deploy.rules import Rule

RETRIES = 10  # the most that Batch takes; it counts interruptions too
HOSTS = "/etc/cloudbatch-taskgroup-hosts"  # BATCH_HOSTS_FILE
DRIVER = "/usr/local/nvidia"
KIND = "[a-z][a-z0-9-]*"
E_MAIL = r"[\w.+-]+@[\w-]+(\.[\w-]+)+"

# A node's number is that of its host's line: tasks and hosts are not listed in one order.
NUMBERED = """\
me=$(uname -n); line=$(grep -n "^${me%%.*}\\(\\..*\\)\\{0,1\\}$" "$BATCH_HOSTS_FILE") || exit 69
export SFT_JOB_NODES="$BATCH_TASK_COUNT" SFT_JOB_NODE_RANK=$((${line%%:*} - 1))
export SFT_JOB_LEADER="$(head -n 1 "$BATCH_HOSTS_FILE")"
exec tini -- sft-job "$@"
"""

Object = dict[str, Any]


def job(
    run: HandedOver,
    containers: Containers,
    machine_type: str,
    accelerator: str | None,
    service_account: str | None,
) -> Object:
    """The Job, as JSON has it: 64-bit numbers are text. Raises: ConfigError."""
    of_form("--machine-type", machine_type, KIND, "a machine type, like a3-highgpu-8g")
    of_form("--accelerator", accelerator, KIND, "a kind of GPU, like nvidia-tesla-t4")
    of_form("--service-account", service_account, E_MAIL, "an e-mail, like NAME@PROJECT.iam.gserviceaccount.com")
    refuse_idle_kind(accelerator, containers.gpus_per_node)
    refuse_shared_memory(containers.shared_memory, containers.memory)
    refuse_taken(containers, "BATCH_(HOSTS_FILE|TASK_COUNT)" + "|LD_LIBRARY_PATH" * (containers.gpus_per_node > 0))
    refuse_values(containers.secrets, "projects/[^/]+/secrets/[^/]+/versions/[^/]+", "projects/P/secrets/S/versions/1")
    group: Object = {
        "taskCount": str(containers.nodes),
        "parallelism": str(containers.nodes),
        "taskCountPerNode": "1",
        "taskSpec": _task(run, containers),
    }
    if containers.nodes > 1:
        group["requireHostsFile"] = True
    policy: Object = {
        "machineType": machine_type,
        "provisioningModel": "SPOT" if containers.spot else "STANDARD",
        "bootDisk": {"image": "batch-cos", "sizeGb": str(whole_gib(containers.disk))},
    }
    if accelerator:
        policy["accelerators"] = [{"type": accelerator, "count": str(containers.gpus_per_node)}]
    allocation: Object = {"instances": [{"policy": policy, "installGpuDrivers": containers.gpus_per_node > 0}]}
    if service_account:
        allocation["serviceAccount"] = {"email": service_account}
    return {
        "taskGroups": [group],
        "allocationPolicy": allocation,
        "labels": {"app": NAME},
        "logsPolicy": {"destination": "CLOUD_LOGGING"},
    }


def lifecycle_policies() -> list[Object]:
    """There may be one. What it does not name is tried again, the loss of a spot machine (50001) among it."""
    return [{"action": "FAIL_TASK", "actionCondition": {"exitCodes": codes(Rule.NEVER)}}]


def _task(run: HandedOver, containers: Containers) -> Object:
    gpus = containers.gpus_per_node > 0
    several = containers.nodes > 1
    container: Object = {
        "imageUri": containers.image,
        "commands": ["-c", NUMBERED, NAME, *words(run)] if several else words(run),
        # The driver's devices and libraries are the host's: a Container-Optimized OS has no runtime that brings them.
        "options": " ".join(
            [
                f"--shm-size={whole_mib(containers.shared_memory)}m",
                *(["--privileged"] if gpus else []),
                *(["--network=host"] if several else []),
            ]
        ),
        "volumes": [
            *([f"/var/lib/nvidia/{part}:{DRIVER}/{part}" for part in ("lib64", "bin")] if gpus else []),
            *([f"{HOSTS}:{HOSTS}:ro"] if several else []),
        ],
    }
    if several:
        container["entrypoint"] = "/bin/sh"
    variables = {**({"LD_LIBRARY_PATH": f"{DRIVER}/lib64"} if gpus else {}), **containers.environment}
    environment: Object = {"variables": variables}
    if containers.secrets:
        environment["secretVariables"] = dict(containers.secrets)
    return {
        "runnables": [{"container": container}],
        "computeResource": {"cpuMilli": str(containers.cpus * 1000), "memoryMib": str(whole_mib(containers.memory))},
        "maxRetryCount": RETRIES,
        "lifecyclePolicies": lifecycle_policies(),
        "environment": environment,
    }
