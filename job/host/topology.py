"""What this job has: which device the ranks use, how many there are, on how many nodes, and who leads them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from job.config import ParallelConfig, RunConfig
from job.errors import ConfigError, HardwareError
from job.host.devices import promised_gpus, visible_gpus
from job.host.place import Place, place


@dataclass(frozen=True)
class Topology:
    """All ranks of the job, as this node sees them."""

    device: str  # "cuda" | "cpu"
    ranks_per_node: int
    strategy: str  # "single" | "ddp" | "zero1" | "zero2" | "zero3"
    nodes: int = 1
    node_rank: int = 0
    leader: str = "127.0.0.1"  # where node 0 is reached
    port: int = 0  # of node 0's supervisor; 0: there is one node

    @property
    def world_size(self) -> int:
        return self.nodes * self.ranks_per_node

    @property
    def leads(self) -> bool:
        """Is this the node of rank 0, which claims, reads and commits?"""
        return self.node_rank == 0

    @property
    def ranks(self) -> range:
        """This node's."""
        first = self.node_rank * self.ranks_per_node
        return range(first, first + self.ranks_per_node)


def topology(config: RunConfig, environment: Mapping[str, str] | None = None) -> Topology:
    """Which ranks to start here.

    Raises: HardwareError when GPUs were asked for or granted and none or too few are there, never a silent run on the
    CPU; ConfigError when the launcher's variables, or they and the config, contradict each other.
    """
    return topology_of(config.parallel, os.environ if environment is None else environment)


def topology_of(parallel: ParallelConfig, environment: Mapping[str, str]) -> Topology:
    """As `topology`, of the one section that it depends on."""
    here = place(environment)
    gpus = _gpus(parallel, environment)
    ranks = _ranks(parallel, here, gpus)
    chosen = parallel.strategy
    strategy = ("single" if ranks * here.nodes == 1 else "ddp") if chosen == "auto" else chosen
    if strategy == "single":
        if here.nodes > 1:
            raise ConfigError(f"parallel.strategy is single, but {here.by} says {here.nodes} nodes: write ddp or auto")
        ranks = 1
    device = "cuda" if gpus else "cpu"
    return Topology(device, ranks, strategy, here.nodes, here.node_rank, here.leader, here.port)


def _gpus(parallel: ParallelConfig, environment: Mapping[str, str]) -> int:
    wanted = parallel.device
    gpus = 0 if wanted == "cpu" else visible_gpus(environment)
    if gpus == 0 and wanted != "cpu" and (wanted == "cuda" or promised_gpus(environment)):
        reason = "parallel.device is cuda" if wanted == "cuda" else "the scheduler granted GPUs"
        raise HardwareError(
            f"{reason}, but this machine shows none (no /dev/nvidia* or /dev/kfd, or an empty CUDA_VISIBLE_DEVICES); "
            "ask the scheduler for GPUs, or set parallel.device: cpu"
        )
    return gpus


def _ranks(parallel: ParallelConfig, here: Place, gpus: int) -> int:
    """On this node. On CPUs a launcher's figure is a guess from its cores, and does not count."""
    asked = parallel.nproc_per_node
    told = here.ranks_per_node if gpus else None
    if isinstance(asked, int) and told is not None and told != asked:
        raise ConfigError(f"parallel.nproc_per_node is {asked}, but {here.ranks_from} is {told}: drop one of them")
    name = "parallel.nproc_per_node" if isinstance(asked, int) else here.ranks_from
    ranks = asked if isinstance(asked, int) else told or max(gpus, 1)
    if gpus and ranks > gpus:
        raise HardwareError(f"{name} is {ranks}, but {gpus} GPUs are visible")
    return ranks
