"""A forked process shows its own environment in /proc, as one started by exec does.

The kernel shows the memory where exec once put the environment; what a program sets later lies elsewhere. So a process
that is to be forked is started with room there, and its children write theirs into it.
"""

import ctypes
import os
from collections.abc import Mapping
from pathlib import Path

ROOM = "SFT_CHAOS_ROOM"
ROOM_BYTES = 16 << 10


def with_room(environment: Mapping[str, str]) -> dict[str, str]:
    return {**environment, ROOM: "-" * ROOM_BYTES}


def take_on(environment: Mapping[str, str]) -> None:
    """This process's environment is the given one, for itself and for who looks into /proc."""
    os.environ.clear()  # first: no pointer of the C library may be left to what is overwritten below
    os.environ.update(environment)
    start, end = _shown()
    shown = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    assert len(shown) <= end - start, f"the environment takes {len(shown)} bytes, there is room for {end - start}"
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, shown, len(shown))


def _shown() -> tuple[int, int]:
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return int(fields[47]), int(fields[48])  # env_start and env_end, proc(5): fields 50 and 51 of the whole line
