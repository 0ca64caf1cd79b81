"""Which process and which scheduler's job this is, and whether another attempt's can still be running."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.storage.records import AttemptRecord

SCHEDULER_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SFT_JOB_KUBERNETES_JOB",
    "AWS_BATCH_JOB_ID",
)
LIFE = "SLURM_RESTART_COUNT"  # how often the job was requeued; unset in its first life


def this_process() -> dict[str, Any]:
    """What tells this process from any other of this or another machine."""
    return {"boot": _read("/proc/sys/kernel/random/boot_id"), "pids": _pid_namespace(), **_process(os.getpid())}


def _process(pid: int) -> dict[str, Any]:
    """Start time "" where the process is gone, or is dead and only not waited for yet."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # from field 3 on, proc(5)
    return {"pid": pid, "started": fields[19] if fields and fields[0] not in "ZX" else ""}


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def scheduler_ids(environment: Mapping[str, str]) -> dict[str, str]:
    """What tells this job from any other; and its life, where it is not the first."""
    return {name: environment[name] for name in (*SCHEDULER_VARIABLES, LIFE) if environment.get(name)}


def _job(ids: Mapping[str, str]) -> tuple[dict[str, str], int]:
    """(what stays the same in all lives of a job, which life it is)."""
    life = ids.get(LIFE, "0")
    return {name: value for name, value in ids.items() if name != LIFE}, int(life) if life.isdigit() else 0


def gone(record: AttemptRecord) -> bool:
    """Whether the attempt cannot be running, as far as this machine and our scheduler's ids tell.

    An earlier life of this very job is over: a process of it that is left, as where a node's daemon died, is a zombie,
    and the fence keeps it from harm.
    """
    (job, life), (its_job, its_life) = _job(scheduler_ids(os.environ)), _job(record.scheduler)
    ours = bool(job) and job == its_job
    if ours and its_life != life:
        return its_life < life
    here, there = this_process(), record.process
    if there.get("boot") == here["boot"] != "" and there.get("pids") == here["pids"]:
        pid = int(there.get("pid", 0))
        started = _process(pid)["started"]
        return started != there.get("started") and not (started == "" and _anothers(pid))
    return ours


def _anothers(pid: int) -> bool:
    """Whether it is another user's process: /proc may hide it."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        pass
    return False


def whose(record: AttemptRecord | None) -> str:
    if record is None:
        return "an unknown host (its record is unreadable)"
    ids = ", ".join(f"{name}={value}" for name, value in record.scheduler.items())
    return f"{record.host} ({ids or 'pid ' + str(record.process.get('pid', 'unknown'))})"
