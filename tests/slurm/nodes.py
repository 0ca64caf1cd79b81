"""A node: slurmd in PID and mount namespaces of its own, where they are to be had.

As on real nodes, no process sees another node's, all of a node's processes end with it, and those of a slurmd that was
killed live on. What lies in a home that other users may not enter is shown to them, on the node alone.
"""

import functools
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT

NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
PROGRAMS = (Path(sys.base_prefix), Path(sys.prefix), ROOT)  # what a job runs


@functools.cache
def isolated() -> bool:
    """Whether namespaces may be made here."""
    if shutil.which("unshare") is None:
        return False
    trial = [*NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(trial, capture_output=True, timeout=20).returncode == 0


def command(slurmd: list[str], aside: Path) -> list[str]:
    """What starts the node, whose first process adopts orphans and stays when slurmd is gone. `aside`: a folder."""
    if not isolated():
        return slurmd
    lines = ["set -e", *_mounts(aside), f"{shlex.join(slurmd)} &", "while :; do wait; sleep 0.2; done"]
    return [*NAMESPACES, "bash", "-c", "\n".join(lines)]


def open_to_all() -> bool:
    """Whether any user can run the program on a node."""
    return isolated() or not list(_hidden())


def _mounts(aside: Path) -> Iterator[str]:
    hidden = list(enumerate(_hidden()))
    for number, (_, shown) in hidden:
        yield f"mkdir -p {aside}/{number}; mount --bind {shlex.quote(str(shown))} {aside}/{number}"
    for closed in sorted({closed for _, (closed, _) in hidden}):
        yield f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed))}"
    for number, (_, shown) in hidden:
        yield f"mkdir -p {shlex.quote(str(shown))}; mount --bind {aside}/{number} {shlex.quote(str(shown))}"


def _hidden() -> Iterator[tuple[Path, Path]]:
    """Folders that others may not enter, and what lies in them that a job needs."""
    for shown in PROGRAMS:
        if closed := next((folder for folder in reversed(shown.parents) if not folder.stat().st_mode & 1), None):
            yield closed, shown
