"""How each rank of this node is started: its command and its environment, as values that can be printed."""

import os
import sys

from job.host.topology import Topology


def rank_environment(topology: Topology, rank: int, port: int) -> dict[str, str]:
    """torchrun's contract, which accelerate and DeepSpeed read. A single rank gets none of it: it is to open no
    process group."""
    threads = max(1, usable_cores() // topology.ranks_per_node)
    common = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # everything was pulled before: a rank that calls a hub is a bug
        "SFT_JOB_DEVICE": topology.device,
    }
    if topology.strategy == "single":  # with more GPUs in sight the Trainer would turn to DataParallel
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return common | ({"CUDA_VISIBLE_DEVICES": first} if topology.device == "cuda" else {})
    return common | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank % topology.ranks_per_node),
        "WORLD_SIZE": str(topology.world_size),
        "LOCAL_WORLD_SIZE": str(topology.ranks_per_node),
        "MASTER_ADDR": topology.leader,
        "MASTER_PORT": str(port),
    }


def usable_cores() -> int:
    """A scheduler often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
