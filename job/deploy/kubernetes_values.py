"""What may be chosen for a run's pods, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from job import __version__

IMAGE = f"sft-job:{__version__}"
DISK = "100Gi"  # of the node's
USER = 10001  # the image's; it works as any other too
STATE, CONFIG, SHARED_MEMORY = "/var/lib/sft-job", "/etc/sft-job", "/dev/shm"
GPU = "nvidia.com/gpu"
LEADER_PORT = 29471  # job.host.sources.DEFAULT_PORT

Object = dict[str, Any]


@dataclass(frozen=True)
class Pods:
    """Of one run. Sizes are Kubernetes' quantities."""

    image: str = IMAGE
    nodes: int = 1
    gpus_per_node: int = 1
    gpu_resource: str = GPU
    cpus: str = "8"
    memory: str = "32Gi"
    shared_memory: str = "8Gi"  # it counts against `memory`
    disk: str = DISK
    grace_seconds: int = 120
    retries: int = 6
    namespace: str | None = None
    jobset: bool = False
    queue: str | None = None
    priority_class: str | None = None
    pull_secrets: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()  # whose keys become variables
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[tuple[tuple[str, str], ...], ...] = ()
    claims: Mapping[str, str] = field(default_factory=dict)  # persistent volume claims: where each is mounted
    cache_size: str | None = None  # a volume for all state, by the class below, in place of the node's own disk
    storage_class: str | None = None
    service_account: str | None = None  # one that is there; without it the run gets one of its own
    service_account_annotations: Mapping[str, str] = field(default_factory=dict)
