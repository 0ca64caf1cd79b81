"""The machine that is planned for: this one, or one that is only named."""

from job.config import RunConfig
from job.errors import ConfigError, HardwareError
from job.host.gpus import Gpu, gpus, machine
from job.host.topology import Topology, topology


def planned_machine(config: RunConfig, spelled: str | None, nodes: int | None) -> tuple[Topology, list[Gpu]]:
    """This one, or the one that is named. Raises: ConfigError."""
    if spelled is None and nodes is None:
        try:
            at = topology(config)
        except HardwareError as error:
            raise ConfigError(f"{error}; or name the machine: --gpus-per-node 8xH100-80") from error
        return at, gpus()[: at.ranks_per_node] if at.device == "cuda" else []
    devices = machine(spelled) if spelled is not None else gpus()
    if spelled is not None and config.parallel.device == "cpu":
        raise ConfigError("--gpus-per-node names GPUs, but parallel.device is cpu: leave one of them out")
    asked = config.parallel.nproc_per_node
    if isinstance(asked, int) and devices and asked > len(devices):
        raise ConfigError(f"parallel.nproc_per_node is {asked}, but --gpus-per-node names {len(devices)}")
    ranks = asked if isinstance(asked, int) else max(len(devices), 1)
    nodes = nodes or 1
    strategy = config.parallel.strategy
    if strategy == "single":
        if nodes > 1:
            raise ConfigError(f"parallel.strategy is single, but --nodes is {nodes}: write ddp or auto")
        ranks = 1
    if strategy == "auto":
        strategy = "single" if ranks * nodes == 1 else "ddp"
    leader = "127.0.0.1" if nodes == 1 else "LEADER"
    return Topology("cuda" if devices else "cpu", ranks, strategy, nodes, 0, leader), devices[:ranks]
