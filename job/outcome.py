"""How a run ended, in files that a scheduler reads: SFT_JOB_EXIT_FILE and SFT_JOB_TERMINATION_LOG.

The first is the job's, written by its first node. Line 1: the exit code. Line 2: the index of the node on which the
cause arose, 0 where it is not known. Line 3: the reason. srun's own code is the highest of all nodes', and says neither
why nor where. The second is each node's own, for a failure: the reason alone, in place, as it is a mount.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from job.errors import ExitCode, JobError
from job.host.place import place

EXIT_FILE = "SFT_JOB_EXIT_FILE"
TERMINATION_LOG = "SFT_JOB_TERMINATION_LOG"


def tell_outcome(code: int, reason: str, node_rank: int = 0, environment: Mapping[str, str] | None = None) -> None:
    """`node_rank`: of the node that the cause arose on. Nothing happens without the variables. Never raises."""
    env = os.environ if environment is None else environment
    reason = " ".join(reason.split())
    if (file := env.get(EXIT_FILE)) and _leads(env):
        with contextlib.suppress(OSError, ValueError):
            _write(Path(file), f"{int(code)}\n{node_rank}\n{reason}\n")
    if (log := env.get(TERMINATION_LOG)) and code != ExitCode.DONE:
        with contextlib.suppress(OSError, ValueError):
            Path(log).write_text(f"{reason}\n", encoding="utf-8", errors="replace")


def _leads(environment: Mapping[str, str]) -> bool:
    """Where the launcher's variables make no sense, Slurm's own count of nodes still does."""
    try:
        return place(environment).node_rank == 0
    except JobError:
        return environment.get("SLURM_NODEID", "0").strip() in ("", "0")


def _write(path: Path, text: str) -> None:
    """Whole or not at all; in place where the folder takes no other file, or the file is itself a mount."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        path.write_text(text, encoding="utf-8", errors="replace")
