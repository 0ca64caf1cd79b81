"""What this job has: which device the ranks use, how many there are, on how many nodes, and who leads them."""

import itertools
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from job.config import RunConfig
from job.errors import HardwareError

GPU_NAME = re.compile(r"\d+|(GPU|MIG)-.+")
BF16_CAPABILITY = 8.0  # Ampere; CUDA C++ programming guide, arithmetic by compute capability


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


def visible_gpus(environment: dict[str, str] | None = None, devices: Path = Path("/dev")) -> int:
    """GPUs this process may use: the scheduler's list where there is one, else the device files; no driver call.

    As CUDA reads its list: it ends before the first entry that is no device ("-1", Slurm's "NoDevFiles").
    """
    present = _device_files(devices)
    listed = _scheduler_list(os.environ if environment is None else environment)
    if listed is None or present == 0:
        return present
    names = (name.strip() for name in listed.split(","))
    return sum(1 for _ in itertools.takewhile(GPU_NAME.fullmatch, names))


def _device_files(devices: Path) -> int:
    return sum(1 for entry in devices.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", entry.name))


def _scheduler_list(environment: Mapping[str, str]) -> str | None:
    """AMD's variables count only where CUDA's is not set: Slurm sets all of them."""
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    return next((environment[name] for name in names if name in environment), None)


def promised_gpus(environment: dict[str, str] | None = None) -> bool:
    """Did the scheduler grant GPUs to this job? Then training on the CPU would be a silent failure."""
    env = os.environ if environment is None else environment
    none = ("", "-1", "NoDevFiles")
    listed = (env.get(name, "").strip() not in none for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))  # 0: the first
    return any(listed) or env.get("SLURM_GPUS_ON_NODE", "").strip() not in (*none, "0")


def computes_bf16() -> bool:
    """Whether every visible GPU is of a generation with bf16; assumed where the driver's tool does not say."""
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        query += ["-i", visible]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return all(float(capability) >= BF16_CAPABILITY for capability in said)
    except (OSError, subprocess.SubprocessError, ValueError):
        return True


def topology(config: RunConfig) -> Topology:
    """Which ranks to start here.

    Raises: HardwareError when GPUs were asked for or granted and none or too few are there; never a silent run on the
    CPU.
    """
    wanted, asked = config.parallel.device, config.parallel.nproc_per_node
    gpus = 0 if wanted == "cpu" else visible_gpus()
    if gpus == 0 and wanted != "cpu" and (wanted == "cuda" or promised_gpus()):
        reason = "parallel.device is cuda" if wanted == "cuda" else "the scheduler granted GPUs"
        raise HardwareError(
            f"{reason}, but this machine shows none (no /dev/nvidia*, or an empty CUDA_VISIBLE_DEVICES); "
            "ask the scheduler for GPUs, or set parallel.device: cpu"
        )
    if gpus and isinstance(asked, int) and asked > gpus:
        raise HardwareError(f"parallel.nproc_per_node is {asked}, but {gpus} GPUs are visible")
    ranks = asked if isinstance(asked, int) else max(gpus, 1)
    chosen = config.parallel.strategy
    strategy = ("single" if ranks == 1 else "ddp") if chosen == "auto" else chosen
    if strategy == "single":
        ranks = 1
    return Topology("cuda" if gpus else "cpu", ranks, strategy)
