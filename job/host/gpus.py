"""The GPUs of a machine: those at hand, as the driver tells them, or those that a short name promises.

`8xH100-80` is eight H100 of 80 GB. What a name promises stands in one table, so that a machine can be planned for
before it is there.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from job.errors import ConfigError
from job.host.devices import amd_nodes, device_list, without

TOOL_SECONDS = 20.0  # a driver in trouble hangs its own tool
BF16_CAPABILITY = 8.0  # Ampere; CUDA C++ programming guide, arithmetic by compute capability
BF16_GFX = 90008
MIB, GIB = 1 << 20, 1 << 30
MACHINE = re.compile(r"(?:([1-9]\d*)x)?([A-Za-z][A-Za-z0-9]*)(?:-([1-9]\d*)(?:GB)?)?", re.IGNORECASE)
SPELLING = "write COUNTxNAME-GB, like 8xH100-80"
OWN = 0.994  # of HBM and of memory without ECC the driver leaves this much: an H100 of 80 shows 81,559 of 81,920 MiB
WITH_ECC = 0.937  # GDDR keeps its check bits in itself: an L4 of 24 shows 23,034 of 24,576 MiB

KNOWN = {  # name: GB as sold, share that is left of them, bf16
    "P100": (16, OWN, False),
    "V100": (32, OWN, False),
    "T4": (16, WITH_ECC, False),
    "A10": (24, WITH_ECC, True),
    "A10G": (24, WITH_ECC, True),
    "A16": (16, WITH_ECC, True),
    "A30": (24, OWN, True),
    "A40": (48, WITH_ECC, True),
    "A100": (80, OWN, True),
    "A6000": (48, WITH_ECC, True),
    "L4": (24, WITH_ECC, True),
    "L40": (48, WITH_ECC, True),
    "L40S": (48, WITH_ECC, True),
    "RTX3090": (24, OWN, True),
    "RTX4090": (24, OWN, True),
    "RTX5090": (32, OWN, True),
    "H20": (96, OWN, True),
    "H100": (80, OWN, True),
    "H200": (141, OWN, True),
    "GH200": (96, OWN, True),
    "B200": (180, OWN, True),
    "GB200": (186, OWN, True),
    "B300": (288, OWN, True),
    "MI210": (64, OWN, True),
    "MI250X": (64, OWN, True),  # a GPU of ROCm's is one of its two dies
    "MI300A": (128, OWN, True),
    "MI300X": (192, OWN, True),
    "MI325X": (256, OWN, True),
    "MI355X": (288, OWN, True),
}


@dataclass(frozen=True)
class Gpu:
    """One device that a rank can have: a whole GPU, or a MIG slice of one."""

    name: str  # as its driver says it, or as it was asked for
    memory_bytes: int  # what the driver shows, not what it was sold with
    bf16: bool


def gpus(environment: Mapping[str, str] | None = None) -> list[Gpu]:
    """Those that this process may use, in the order of its ranks; [] where there are none or their driver is silent."""
    listed = device_list(os.environ if environment is None else environment)
    if listed is not None and any(name.startswith("MIG-") for name in listed):
        return _slices(listed, _tool("-L"))
    if listed == []:
        return []
    said = _tool("--query-gpu=name,memory.total,compute_cap,index,uuid", "--format=csv,noheader,nounits")
    return _whole(listed, said) or _amd(listed)


def machine(spelled: str) -> list[Gpu]:
    """The GPUs of one node of a machine that is not at hand. Raises: ConfigError with the spelling."""
    found = MACHINE.fullmatch(spelled.strip())
    if found is None:
        raise ConfigError(f"{spelled!r} names no machine: {SPELLING}")
    count, name = int(found[1] or 1), found[2].upper()
    sold, share, bf16 = KNOWN.get(name, (0, OWN, True))
    gigabytes = int(found[3] or sold)
    if not gigabytes:
        raise ConfigError(
            f"{spelled!r}: {found[2]} is not a GPU that is known here, so its memory is needed: {SPELLING}"
        )
    return [Gpu(f"{name} {gigabytes}GB", int(gigabytes * GIB * share), bf16)] * count


def computes_bf16() -> bool:
    """Whether every GPU at hand does; assumed where the driver does not say what they are."""
    return all(gpu.bf16 for gpu in gpus())


def driver_version() -> str:
    """NVIDIA's; empty where its tool does not say."""
    return _tool("--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0].strip()


def _tool(*arguments: str) -> str:
    """What `nvidia-smi` says; nothing where it is missing, fails or hangs."""
    environment = without(os.environ, "CUDA_VISIBLE_DEVICES")
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=TOOL_SECONDS, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _whole(listed: list[str] | None, said: str) -> list[Gpu]:
    """A list names GPUs by index, by UUID, or by the beginning of one."""
    present: dict[tuple[str, str], Gpu] = {}
    for line in said.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 4)]
        if len(cells) != 5 or not cells[1].isdigit():
            continue
        name, mib, capability, index, uuid = cells
        present[index, uuid] = Gpu(name, int(mib) * MIB, _at_least(capability, BF16_CAPABILITY))
    if listed is None:
        return list(present.values())
    return [
        gpu
        for wanted in listed
        for (index, uuid), gpu in present.items()
        if wanted == index or (not wanted.isdigit() and uuid.startswith(wanted))
    ]


def _slices(listed: list[str], said: str) -> list[Gpu]:
    """MIG slices by their UUID, as `nvidia-smi -L` lists them below their GPU: `MIG 3g.40gb Device 0: (UUID: ...)`.

    Every GPU that can be sliced computes bf16.
    """
    present, parent = {}, "GPU"
    for line in said.splitlines():
        if whole := re.match(r"GPU \d+: (.+?) \(UUID", line):
            parent = whole[1]
        elif slice_ := re.match(r"\s+MIG (\S*?\.(\d+)gb\S*)\s.*\(UUID: (MIG-[^)]+)\)", line):
            present[slice_[3]] = Gpu(f"{parent} MIG {slice_[1]}", int(int(slice_[2]) * GIB * WITH_ECC), True)
    return [gpu for wanted in listed for uuid, gpu in present.items() if uuid.startswith(wanted)]


def _amd(listed: list[str] | None) -> list[Gpu]:
    """gfx908 (MI100) is the first with bf16; the kernel knows its GPUs by that number only, 90402 being gfx942."""
    present = []
    for node in amd_nodes():
        version = node.get("gfx_target_version", 0)
        name = f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
        present.append(Gpu(name, node["memory_bytes"], version >= BF16_GFX))
    if listed is None:
        return present
    return [present[int(wanted)] for wanted in listed if wanted.isdigit() and int(wanted) < len(present)]


def _at_least(said: str, least: float) -> bool:
    try:
        return float(said) >= least
    except ValueError:  # an old driver's tool does not know the question
        return True
