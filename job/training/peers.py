"""The ranks of a launch meet: before any other word they compare what they are there for, then start the process group.

Each leaves under its own number which attempt, launch, rows and checkpoint it was started for. Rank 0 reads all of it
and says whether they agree. A rank of an older launch that finds this port leaves before it has left anything.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from job.errors import RankCrashed
from job.rundir import Spec

AGREED = "agreed"
PARTING_SECONDS = 5.0  # that rank 0, whose leaving ends the store, waits for the others to have read why all leave
SILENT_SECONDS = 1800.0  # that a rank may be slower than another, at a start for instance: supervisors end dead ones


@dataclass(frozen=True)
class Facts:
    """What all ranks of a launch must have in common."""

    attempt: int
    nonce: str
    launch: int
    fingerprint: str
    resume_step: int | None


def meet(spec: Spec, fingerprint: str, device: torch.device) -> None:
    """Start the process group of torchrun's environment variables; nothing where there are none.

    Raises: RankCrashed when others do not come within `spec.wait_seconds`, or came for something else.
    """
    if "RANK" not in os.environ:
        return
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    wait = timedelta(seconds=spec.wait_seconds)
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            address, port, world_size, rank == 0, wait, wait_for_workers=False
        )
        compare(store, rank, world_size, Facts(spec.attempt, spec.nonce, spec.launch, fingerprint, spec.resume_step))
    except (dist.DistError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        if rank == 0 and "EADDRINUSE" in str(error):
            raise RankCrashed(f"port {port} was taken by another program while the ranks started") from error
        raise RankCrashed(
            f"not all {world_size} ranks met at {address}:{port} within {spec.wait_seconds:.0f} s: {reason}"
        ) from error
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed_c10d.PrefixStore(f"{spec.nonce}-{spec.launch}", store),
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=max(spec.wait_seconds, SILENT_SECONDS)),
        device_id=device if device.type == "cuda" else None,
    )


def compare(store: distributed_c10d.Store, rank: int, world_size: int, ours: Facts) -> None:
    """Raises: RankCrashed on every rank when one was started for something else; RuntimeError when one stays away."""
    if rank == 0:
        store.set("leads", json.dumps(asdict(ours)))
    leads = Facts(**json.loads(store.get("leads")))
    if (leads.nonce, leads.launch) != (ours.nonce, ours.launch):
        raise RankCrashed(
            f"rank {rank} was started for launch {ours.launch} of attempt {ours.attempt} ({ours.nonce}), but here runs "
            f"launch {leads.launch} of attempt {leads.attempt} ({leads.nonce}): it leaves"
        )
    store.set(f"facts/{rank}", json.dumps(asdict(ours)))
    if rank == 0:
        found = [Facts(**json.loads(store.get(f"facts/{other}"))) for other in range(world_size)]
        odd = [f"rank {other} {difference(facts, ours)}" for other, facts in enumerate(found) if facts != ours]
        store.set("verdict", odd[0] if odd else AGREED)
    if (verdict := store.get("verdict").decode()) != AGREED:
        store.set(f"read/{rank}", "")
        if rank == 0:
            with contextlib.suppress(dist.DistError, RuntimeError):  # one that died reads no more
                store.wait([f"read/{other}" for other in range(world_size)], timedelta(seconds=PARTING_SECONDS))
        raise RankCrashed(verdict)


def difference(facts: Facts, leads: Facts) -> str:
    """What a rank has that rank 0 has otherwise."""
    words = {"attempt": "another attempt", "fingerprint": "other prepared rows", "resume_step": "another resume step"}
    name = next(name for name in words if getattr(facts, name) != getattr(leads, name))
    return f"has {words[name]} than rank 0: {getattr(facts, name)}, not {getattr(leads, name)}"
