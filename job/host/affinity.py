"""Which cores lie near a GPU, by what the kernel says of its place on the PCI bus; no driver is called.

A rank that runs on the other socket copies to its GPU across the link between the sockets.
"""

from collections.abc import Mapping
from pathlib import Path

from job.cores import cores_of
from job.host.devices import amd_nodes, device_list

Cores = tuple[int, ...]


def cores_near_gpus(environment: Mapping[str, str], usable: set[int], root: Path = Path("/")) -> tuple[Cores, ...]:
    """For each visible GPU the usable cores of its NUMA node; () where that is all of them or is not known, or where
    they are fewer than its rank's share: a scheduler may grant most cores on the other socket.

    An index counts only where all GPUs of the machine are visible: schedulers number those they grant anew.
    """
    addresses = _addresses(environment, root)
    share = len(usable) // max(1, len(addresses))
    return tuple(near if len(near) >= share else () for near in (_near(one, usable, root) for one in addresses))


def _near(address: str, usable: set[int], root: Path) -> Cores:
    device = root / "sys/bus/pci/devices" / address
    try:
        if int((device / "numa_node").read_text(encoding="ascii")) < 0:  # one node, or a virtual machine that hides it
            return ()
        near = cores_of((device / "local_cpulist").read_text(encoding="ascii")) & usable
    except (OSError, ValueError):
        return ()
    return () if near == usable else tuple(sorted(near))


def _addresses(environment: Mapping[str, str], root: Path) -> list[str]:
    """PCI addresses of the visible GPUs, in the order of their indices; "" for one that cannot be told."""
    present = _nvidia(root)
    uuids = list(present.values())
    addresses = list(present) or [_amd_address(node) for node in amd_nodes(root)]
    listed = device_list(environment)
    if listed is None:
        return addresses
    whole = len(listed) == len(addresses)
    found = []
    for name in listed:
        if name.isdigit():
            found.append(addresses[int(name)] if whole and int(name) < len(addresses) else "")
        else:
            found.append(next((at for at, uuid in zip(addresses, uuids, strict=False) if uuid.startswith(name)), ""))
    return found


def _nvidia(root: Path) -> dict[str, str]:
    """UUID by PCI address, in bus order, which is the order of the driver's indices."""
    found = {}
    for file in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = file.read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            continue
        said = dict(line.split(":", 1) for line in lines if ":" in line)
        found[file.parent.name] = said.get("GPU UUID", "").strip()
    return found


def _amd_address(node: Mapping[str, int]) -> str:
    place = node.get("location_id", 0)
    return f"{node.get('domain', 0):04x}:{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"
