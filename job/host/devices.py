"""Which GPUs this process may use, read from the scheduler's lists and from device files: no driver is called."""

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

GPU_NAME = re.compile(r"\d+|(GPU|MIG)-.+")
LISTS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
NONE_GRANTED = ("", "-1", "NoDevFiles")


def visible_gpus(environment: Mapping[str, str] | None = None, root: Path = Path("/")) -> int:
    """GPUs this process may use: the scheduler's list where there is one, else the device files.

    A list that names more than there are counts as it stands, as a MIG slice has no device file of its own; without
    any device file there is no GPU.
    """
    present = _device_files(root)
    listed = device_list(os.environ if environment is None else environment)
    return present if listed is None or present == 0 else len(listed)


def device_list(environment: Mapping[str, str]) -> list[str] | None:
    """The scheduler's list, or None where there is none.

    As CUDA reads its list: it ends before the first entry that is no device ("-1", Slurm's "NoDevFiles"). AMD's
    variables count only where CUDA's is not set: Slurm sets all of them.
    """
    listed = next((environment[name] for name in LISTS if name in environment), None)
    if listed is None:
        return None
    return list(itertools.takewhile(GPU_NAME.fullmatch, (name.strip() for name in listed.split(","))))


def promised_gpus(environment: Mapping[str, str] | None = None) -> bool:
    """Did the scheduler grant GPUs to this job? Then training on the CPU would be a silent failure."""
    env = os.environ if environment is None else environment
    listed = (env.get(name, "").strip() not in NONE_GRANTED for name in ("SLURM_JOB_GPUS", "SLURM_STEP_GPUS"))
    return any(listed) or env.get("SLURM_GPUS_ON_NODE", "").strip() not in (*NONE_GRANTED, "0")  # a list "0": the first


def without(environment: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


def _device_files(root: Path) -> int:
    """NVIDIA's, else AMD's: one of its GPUs is a render node that the kernel's compute driver knows."""
    nvidia = sum(1 for entry in (root / "dev").glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", entry.name))
    return nvidia or len(amd_nodes(root))


def amd_nodes(root: Path = Path("/")) -> list[dict[str, int]]:
    """Properties of each AMD GPU that this process has a device file for, in ROCm's order.

    Source: Linux, drivers/gpu/drm/amd/amdkfd/kfd_topology.c. Processors stand in the same list, with no SIMD units.
    """
    if not (root / "dev" / "kfd").exists():
        return []
    found = []
    folders = (root / "sys/class/kfd/kfd/topology/nodes").glob("[0-9]*")
    for folder in sorted(folders, key=lambda folder: int(folder.name)):
        properties = _properties(folder / "properties")
        render = root / "dev" / "dri" / f"renderD{properties.get('drm_render_minor', 0)}"
        if properties.get("simd_count") and render.exists():
            banks = (_properties(bank) for bank in sorted(folder.glob("mem_banks/*/properties")))
            properties["memory_bytes"] = sum(bank.get("size_in_bytes", 0) for bank in banks)
            found.append(properties)
    return found


def _properties(file: Path) -> dict[str, int]:
    """Lines of a name and a number; empty where the file cannot be read, as with another container's GPU."""
    try:
        pairs = (line.split() for line in file.read_text(encoding="ascii").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
    except (OSError, ValueError):
        return {}
