"""CPU seconds of everything a block starts and waits for, whole process trees included."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Cost:
    """Filled in when the block ends."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


@contextmanager
def cost() -> Iterator[Cost]:
    """A grandchild counts when its own parent has waited for it."""
    took, before, began = Cost(), _children_seconds(), time.monotonic()
    yield took
    took.cpu_seconds, took.wall_seconds = _children_seconds() - before, time.monotonic() - began


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
