"""The GPUs, tried by a rank on each: started as a run's ranks are, and ended as they are."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from job.config import ParallelConfig
from job.errors import ConfigError, HardwareError, Stopped
from job.host.gpus import driver_version, gpus
from job.host.launcher import Ended, Ranks
from job.host.preemption import Stop
from job.host.topology import Topology, topology_of
from job.report.wording import counted, spoken_seconds
from job.rundir import RunDir, write_atomically
from job.storage.finding import Finding, Status
from job.workspace import workspace

POLL_SECONDS = 0.1
START_SECONDS = 120.0  # to import torch and to wake a GPU, on a slow filesystem
CHECK_SECONDS = 120.0
UNEVEN = 0.7  # of the best rank: below it one holds up all the others
TAKEN = 0.95  # of a GPU's memory free: below it somebody else is using it
PROGRAM = "job.probe"

MEANS = {
    "torch": "it uses the device",
    "memory that is free": "nobody else uses them",
    "bf16": "a run computes in bf16",
    "matrix product": "the device computes, and rightly",
    "the ranks meet": "they find each other",
}


def of_ranks(parallel: ParallelConfig, environment: Mapping[str, str], stop: Stop) -> Iterator[Finding]:
    """Findings over all ranks of this node, once they have ended. Raises: Stopped."""
    try:
        machine = topology_of(parallel, environment)
        if machine.device == "cpu" and parallel.device != "cpu":
            raise HardwareError(
                "this machine shows no GPU (no /dev/nvidia* or /dev/kfd, or an empty CUDA_VISIBLE_DEVICES); "
                "--device cpu tries the same on the CPU"
            )
    except (ConfigError, HardwareError) as error:
        yield Finding("GPUs", Status.MISSING, "none that ranks could use", str(error), error=error)
        return
    if machine.device == "cpu" and machine.world_size == 1:
        machine = replace(machine, ranks_per_node=2, strategy="ddp")  # one rank has nobody to reduce with
    if machine.device == "cuda":
        yield _at_hand(machine)
    wait = parallel.wait_seconds if machine.nodes > 1 else START_SECONDS
    with workspace() as run:
        write_atomically(run.path / "probe.json", json.dumps({"wait_seconds": wait}))
        with Ranks(run, machine, PROGRAM, machine.port or None) as ranks:
            ended = _ended(ranks, stop, START_SECONDS + wait + CHECK_SECONDS)
        yield from combined([_said(run, rank) for rank in machine.ranks])
        if ended is None:
            hang = HardwareError(
                f"the ranks hang: no end within {spoken_seconds(START_SECONDS + wait + CHECK_SECONDS)}; "
                "NCCL_DEBUG=INFO, NCCL_P2P_DISABLE=1 and NCCL_IB_DISABLE=1 tell where"
            )
            yield Finding("the ranks", Status.MISSING, "they do not end", str(hang), error=hang)
        elif ended.error is not None:
            # Whatever it died of: it is this machine that cannot do it.
            failed = HardwareError(str(ended.error))
            yield Finding("the ranks", Status.MISSING, "a check failed", str(failed), error=failed)


def _at_hand(machine: Topology) -> Finding:
    found = gpus()
    driver = driver_version()
    names = ", ".join(sorted({gpu.name for gpu in found})) or "their driver's tool says nothing"
    seen = f"{names}; driver {driver}" if driver else names
    if len({gpu.name for gpu in found}) > 1:
        return Finding("GPUs", Status.WARNING, "of several kinds: the slowest holds up the others", seen)
    return Finding("GPUs", Status.OK, counted(machine.ranks_per_node, "rank"), seen)


def _ended(ranks: Ranks, stop: Stop, seconds: float) -> Ended | None:
    until = time.monotonic() + seconds
    while (ended := ranks.ended()) is None and time.monotonic() < until:
        if stop.requested():
            raise Stopped(f"stopped by {stop.reason} while the GPUs were probed")
        time.sleep(POLL_SECONDS)
    return ended


def _said(run: RunDir, rank: int) -> list[dict[str, Any]]:
    """What the rank found before it ended, however it did."""
    try:
        found: list[dict[str, Any]] = json.loads((run.path / f"probe-{rank}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return found


def combined(said: list[list[dict[str, Any]]]) -> Iterator[Finding]:
    """One finding for each check, in the order of the checks; the rank with the least figure speaks for all."""
    names = dict.fromkeys(check["name"] for checks in said for check in checks)
    for name in names:
        of_all = [check for checks in said for check in checks if check["name"] == name]
        figures = [check["figure"] for check in of_all if check["figure"] is not None]
        slowest = min(of_all, key=lambda check: check["figure"] or 0.0)
        seen = slowest["seen"] + (f"; {counted(len(of_all), 'rank')}" if len(said) > 1 else "")
        if len(of_all) < len(said):
            yield Finding(
                name, Status.WARNING, f"{len(said) - len(of_all)} of {len(said)} ranks did not get so far", seen
            )
        elif name == "memory that is free" and min(figures) < TAKEN:
            yield Finding(name, Status.WARNING, "somebody else uses it: nvidia-smi names the process", seen)
        elif name == "bf16" and not all(figures):
            yield Finding(name, Status.WARNING, "a run computes in fp32, which is slower and takes more memory", seen)
        elif name == "matrix product" and min(figures) < UNEVEN * max(figures):
            told = f"uneven, the best has {max(figures):.3g}: a hot, throttled or shared GPU holds up all the others"
            yield Finding(name, Status.WARNING, told, seen)
        else:
            yield Finding(name, Status.OK, MEANS.get(name, "gradients are summed, and rightly"), seen)
