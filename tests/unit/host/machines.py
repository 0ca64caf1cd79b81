"""Machines as files: what the kernel and a driver's tool show of one, below a folder."""

from collections.abc import Mapping
from pathlib import Path


def put(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def nvidia_devices(root: Path, count: int, first: int = 0) -> Path:
    names = ["nvidiactl", "nvidia-uvm", "nvidia-caps", "null", *(f"nvidia{n}" for n in range(first, first + count))]
    return put(root, {f"dev/{name}": "" for name in names})


def nvidia_on_the_bus(root: Path, places: Mapping[str, tuple[str, int, str]]) -> Path:
    """By PCI address: the GPU's UUID, its NUMA node and the cores near it."""
    for address, (uuid, node, cores) in places.items():
        put(
            root,
            {
                f"proc/driver/nvidia/gpus/{address}/information": f"Model: \t NVIDIA H100\nGPU UUID: \t {uuid}\n",
                f"sys/bus/pci/devices/{address}/numa_node": f"{node}\n",
                f"sys/bus/pci/devices/{address}/local_cpulist": f"{cores}\n",
            },
        )
    return root


def amd_machine(root: Path, gpus: int, granted: int | None = None) -> Path:
    """One processor, and MI300X behind it; a container gets the device files of those it was granted."""
    nodes = "sys/class/kfd/kfd/topology/nodes"
    put(root, {"dev/kfd": "", f"{nodes}/0/properties": "cpu_cores_count 96\nsimd_count 0\ngfx_target_version 0\n"})
    for number in range(gpus):
        text = (
            f"cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\ndomain 0\n"
            f"location_id {(number + 1) << 8}\ndrm_render_minor {128 + number}\n"
        )
        put(root, {f"{nodes}/{number + 1}/properties": text})
        put(root, {f"{nodes}/{number + 1}/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {192 << 30}\n"})
    return put(root, {f"dev/dri/renderD{128 + number}": "" for number in range(gpus if granted is None else granted)})
