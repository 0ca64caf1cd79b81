"""Which node of how many this is, and who leads, as the launcher's environment says it: one reader for each launcher.

sft-job is started once on each node, and starts the ranks there itself. A reader returns None where its launcher was
not at work; what several say is compared, and a contradiction is an error.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from job.errors import ConfigError
from job.host.hostlist import expand

Environment = Mapping[str, str]

DEFAULT_PORT = 29471  # of the leader's supervisor; unassigned by IANA, and below the ports that systems hand out
PORTS = 1000  # from there on: jobs of one Slurm cluster may share a node
LIFE_PORTS = 389  # a job's next life is so much further: a zombie of the last one may still be listening
THIS_MACHINE = "127.0.0.1"


@dataclass(frozen=True)
class Told:
    """What one launcher says, with the variables that say it, for whoever has to find a contradiction."""

    by: str
    nodes: int
    nodes_from: str
    node_rank: int
    rank_from: str
    leader: str | None = None  # of node 0
    port: int | None = None
    ranks_per_node: int | None = None
    ranks_from: str = ""


def slurm(environment: Environment) -> Told | None:
    """A step of srun's. A batch script alone runs on the first of its nodes only.

    Source: man srun, output environment variables. Within a step SLURM_NODEID counts the nodes in the list's order;
    but not always in a heterogeneous step, whose list is sorted all the same: there the place in the list counts.
    """
    told = "SLURM_STEP_NUM_NODES"
    if told not in environment:
        granted = next((name for name in ("SLURM_JOB_NUM_NODES", "SLURM_NNODES") if name in environment), None)
        if granted and "SLURM_PROCID" in environment and number(environment, granted) > 1:
            raise ConfigError(
                f"{granted} is {environment[granted]}, but without srun only the first node is used: start it with "
                "`srun --ntasks-per-node=1`, or set SFT_JOB_NODES=1"
            )
        return None
    tasks = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    if max((int(count) for count in re.findall(r"(?:^|,)(\d+)", tasks)), default=1) > 1:
        raise _once_per_node("SLURM_STEP_TASKS_PER_NODE", tasks, "srun --ntasks-per-node=1")
    hosts = expand(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", ""))
    nodes, name = number(environment, told), environment.get("SLURMD_NODENAME")
    listed = name in hosts and len(hosts) == nodes
    return Told(
        "Slurm",
        nodes,
        told,
        hosts.index(name) if listed and name else number(environment, "SLURM_NODEID"),
        "SLURM_NODEID",
        hosts[0] if hosts else None,
        DEFAULT_PORT + _port_of(environment),
    )


def _port_of(environment: Environment) -> int:
    """From DEFAULT_PORT on: of one life of one job."""
    job, life = (environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
    return ((int(job) if job.isdigit() else 0) + LIFE_PORTS * (int(life) if life.isdigit() else 0)) % PORTS


def starts_again(environment: Environment) -> bool:
    """Whether a node whose supervisor left may get another one: srun starts no task twice."""
    return "SLURM_STEP_NUM_NODES" not in environment


def torchrun(environment: Environment) -> Told | None:
    """torchrun, told to start one process on each node. Its own store listens on MASTER_PORT."""
    if "LOCAL_RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    if number(environment, "LOCAL_WORLD_SIZE", 1) > 1 or number(environment, "LOCAL_RANK") > 0:
        name = "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in environment else "LOCAL_RANK"
        raise _once_per_node(name, environment[name], "torchrun --nproc-per-node 1, or no torchrun at all")
    nodes = "GROUP_WORLD_SIZE" if "GROUP_WORLD_SIZE" in environment else "WORLD_SIZE"
    rank = "GROUP_RANK" if "GROUP_RANK" in environment else "RANK"
    leader = environment.get("MASTER_ADDR")
    return Told("torchrun", number(environment, nodes), nodes, number(environment, rank), rank, leader)


def kubeflow(environment: Environment) -> Told | None:
    """Trainer v2 (PET_*), PyTorchJob (both), and PyTorchJob before 1.7, where WORLD_SIZE counts pods.

    Source: kubeflow/trainer, pkg/runtime/framework/plugins/torch/torch.go, and v1.9's pkg/controller.v1/pytorch.
    """
    if "PET_NNODES" in environment:
        nodes, rank, leader, port = "PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"
        least, _, most = environment[nodes].partition(":")
        if most and most != least:
            raise ConfigError(f"{nodes} is {environment[nodes]}: an elastic job; give it a fixed number of nodes")
        count = _whole(nodes, least)
        if rank not in environment and count == 1:
            return None
    elif "LOCAL_RANK" not in environment and {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= environment.keys():
        nodes, rank, leader, port = "WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"
        count = number(environment, nodes)
    else:
        return None
    ranks = environment.get("PET_NPROC_PER_NODE", "")  # auto, gpu and cpu leave it to us
    return Told(
        "Kubeflow",
        count,
        nodes,
        number(environment, rank),
        rank,
        environment.get(leader),
        number(environment, port) if port in environment else None,
        int(ranks) if ranks.isdigit() else None,
        "PET_NPROC_PER_NODE",
    )


def aws_batch(environment: Environment) -> Told | None:
    """A multi-node parallel job, whose main node need not be the first; it is not told its own address.

    Source: AWS Batch user guide, environment variables of multi-node parallel jobs.
    """
    nodes, index, main = (f"AWS_BATCH_JOB_{name}" for name in ("NUM_NODES", "NODE_INDEX", "MAIN_NODE_INDEX"))
    if nodes not in environment:
        return None
    at, leads = number(environment, index), number(environment, main, 0)
    leader = environment.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
    rank = 0 if at == leads else at + 1 if at < leads else at
    return Told("AWS Batch", number(environment, nodes), nodes, rank, index, THIS_MACHINE if at == leads else leader)


def open_mpi(environment: Environment) -> Told | None:
    nodes, rank, local = (f"OMPI_COMM_WORLD_{name}" for name in ("SIZE", "RANK", "LOCAL_SIZE"))
    if nodes not in environment:
        return None
    if number(environment, local, 1) > 1:
        raise _once_per_node(local, environment[local], "mpirun --map-by ppr:1:node")
    return Told("Open MPI", number(environment, nodes), nodes, number(environment, rank), rank)


READERS: tuple[Callable[[Environment], Told | None], ...] = (slurm, torchrun, kubeflow, aws_batch, open_mpi)


def number(environment: Environment, name: str, default: int | None = None) -> int:
    """Raises: ConfigError where the variable is no whole number, or is missing and has no default."""
    value = environment.get(name, "").strip()
    if not value and default is not None:
        return default
    if not value:
        raise ConfigError(f"{name} is not set, though the launcher's other variables are")
    return _whole(name, value)


def _whole(name: str, value: str) -> int:
    if not value.strip().isdigit():
        raise ConfigError(f"{name} is {value!r}: give a whole number")
    return int(value)


def _once_per_node(name: str, value: str, how: str) -> ConfigError:
    return ConfigError(f"{name} is {value}: sft-job is started once on each node and starts a rank for each GPU: {how}")
