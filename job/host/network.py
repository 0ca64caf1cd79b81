"""The network interface over which this node and the leader reach each other, for what would choose a loopback.

gloo listens where this machine's own name leads to. On Debian that is 127.0.1.1, in a pod with the host's network often
127.0.0.1: on one machine all is well, and ranks of other machines wait in vain.
"""

import contextlib
import fcntl
import ipaddress
import socket
import struct
from pathlib import Path

SIOCGIFADDR = 0x8915  # <linux/sockios.h>; man netdevice
ANYWHERE = ("192.0.2.1", "2001:db8::1")  # reserved for documentation (RFC 5737, 3849): only the route is looked up
PORT = 9  # discard; nothing is sent


def interface_towards(leader: str) -> str | None:
    """The name of the interface whose address this machine uses towards the leader; None where it cannot be told.

    On the leader itself, whose own name may lead to a loopback, the interface of the default route.
    """
    candidates = [*_addresses(leader), *((_family(address), address) for address in ANYWHERE)]
    for family, address in candidates:
        own = _source(family, address)
        if own is not None and not ipaddress.ip_address(own).is_loopback:
            return interface_with(own)
    return None


def interface_with(address: str) -> str | None:
    """The interface that has this address."""
    wanted = ipaddress.ip_address(address)
    if wanted.version == 6:
        return _interface_with_ipv6(wanted.packed.hex())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                found = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None


def _interface_with_ipv6(packed: str) -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields and fields[0] == packed:
                return fields[-1]
    return None


def _addresses(host: str) -> list[tuple[int, str]]:
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return [(int(family), str(address[0]).partition("%")[0]) for family, _, _, _, address in found]
    return []


def _source(family: int, address: str) -> str | None:
    """The own address from which the kernel would send there."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, PORT))
        return str(probe.getsockname()[0]).partition("%")[0]
    return None


def _family(address: str) -> int:
    return int(socket.AF_INET6 if ":" in address else socket.AF_INET)
