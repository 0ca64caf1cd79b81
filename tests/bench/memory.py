"""The peak memory of a process and all that it starts, shared pages counted once."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.1


@dataclass
class Peak:
    """`bytes`: the largest sum of their proportional set sizes (PSS), as /proc/PID/smaps_rollup has them."""

    bytes: int = 0
    processes: int = 0  # the most at once


@contextmanager
def peak_of(process: "subprocess.Popen[bytes]") -> Iterator[Peak]:
    """Looks until the block ends, which should wait for `process`."""
    found, over = Peak(), threading.Event()

    def look() -> None:
        while not over.is_set():
            with_children = [process.pid, *_children(process.pid)]
            found.processes = max(found.processes, len(with_children))
            found.bytes = max(found.bytes, sum(map(_pss_bytes, with_children)))
            time.sleep(SAMPLE_SECONDS)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:  # it is over
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
