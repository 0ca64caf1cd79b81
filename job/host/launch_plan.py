"""How each rank of this node is started: its command and its environment, as values that can be printed."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from job.cores import usable_cores, written
from job.host.affinity import Cores, cores_near_gpus
from job.host.devices import device_list
from job.host.network import interface_towards
from job.host.topology import Topology

MODULE = "job.train"


@dataclass(frozen=True)
class Surroundings:
    """What launching depends on, beside the topology: this machine's own."""

    environment: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1
    near: tuple[Cores, ...] = ()  # for each visible GPU the cores on its side of the machine; () unknown
    interface: str | None = None  # towards the leader


@dataclass(frozen=True)
class RankCommand:
    """One rank: `environment` comes on top of the supervisor's own; `cpus` () are all."""

    rank: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    cpus: Cores = ()


def surroundings(topology: Topology) -> Surroundings:
    """Of this machine. Looks up the leader's name where there are several nodes."""
    usable = os.sched_getaffinity(0) if sys.platform == "linux" else set[int]()
    near = cores_near_gpus(os.environ, usable) if topology.device == "cuda" else ()
    interface = interface_towards(topology.leader) if topology.nodes > 1 else None
    return Surroundings(os.environ, usable_cores(), near, interface)


def launch_plan(
    topology: Topology, folder: Path, port: int, module: str = MODULE, around: Surroundings | None = None
) -> list[RankCommand]:
    """The ranks of this node, in order; a pure function of its arguments where `around` is given.

    `folder`: the run folder of this node; `port`: where the ranks meet on the leader's node.
    """
    around = around or surroundings(topology)
    argv = (sys.executable, "-m", module, str(folder))
    commands = []
    for local, rank in enumerate(topology.ranks):
        cpus = around.near[local] if local < len(around.near) else ()
        commands.append(RankCommand(rank, argv, rank_environment(topology, rank, port, around), cpus))
    return commands


def rank_environment(topology: Topology, rank: int, port: int, around: Surroundings | None = None) -> dict[str, str]:
    """torchrun's contract, which accelerate and DeepSpeed read. A single rank gets none of it: it is to open no
    process group. What the user has set of OMP, NCCL and gloo is kept."""
    around = around or surroundings(topology)
    local = rank % topology.ranks_per_node
    environment = {
        "OMP_NUM_THREADS": around.environment.get(
            "OMP_NUM_THREADS", str(max(1, around.cores // topology.ranks_per_node))
        ),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # everything was pulled before: a rank that calls a hub is a bug
        "SFT_JOB_DEVICE": topology.device,
    }
    if local < len(around.near) and around.near[local]:
        environment["SFT_JOB_CPUS"] = written(around.near[local])
    if topology.strategy == "single":  # with more GPUs in sight the Trainer would turn to DataParallel
        return environment | (_only(around.environment, 0) if topology.device == "cuda" else {})
    environment |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "WORLD_SIZE": str(topology.world_size),
        "LOCAL_WORLD_SIZE": str(topology.ranks_per_node),
        "MASTER_ADDR": topology.leader,
        "MASTER_PORT": str(port),
    }
    if topology.device == "cuda" and _sliced(device_list(around.environment)):
        environment |= {**_only(around.environment, local), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    if around.interface is not None and "GLOO_SOCKET_IFNAME" not in around.environment:
        environment["GLOO_SOCKET_IFNAME"] = around.interface
    return environment


def _sliced(listed: Sequence[str] | None) -> bool:
    """CUDA shows a process one MIG slice, the first of its list: each rank has to get a list of its own."""
    return bool(listed) and any(name.startswith("MIG-") for name in listed or ())


def _only(environment: Mapping[str, str], local: int) -> dict[str, str]:
    """The lists, cut down to one device. ROCm's own list stays: HIP counts within it."""
    set_here = [name for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES") if environment.get(name)]
    if not set_here:
        return {"CUDA_VISIBLE_DEVICES": str(local)}
    return {name: environment[name].split(",")[local].strip() for name in set_here}
