"""This machine as a run would find it: its place in the job, memory, cores, disk, and what is installed."""

import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from job.config import ParallelConfig
from job.cores import usable_cores
from job.doctor.disk import of_disk
from job.errors import ConfigError, HardwareError
from job.host.place import place
from job.host.topology import topology_of
from job.host_memory import available_bytes
from job.report.wording import counted, spoken_bytes
from job.storage.finding import Finding, Status
from job.versions import versions

GIB = 1 << 30
SHM_BYTES = 1 << 30  # NCCL takes some 10 MB for each pair of GPUs; Docker gives 64 MB to all
LITTLE_MEMORY_BYTES = 4 << 30  # torch with CUDA takes 2-3 GB of host memory for each rank
OPEN_FILES = 1024  # connections, shards, sockets between ranks: some hundreds
NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed")


def of_machine(
    parallel: ParallelConfig, environment: Mapping[str, str], stopped: Callable[[], bool], shm: Path = Path("/dev/shm")
) -> Iterator[Finding]:
    """Findings in order, each as soon as it is known. Raises: Stopped."""
    ranks = 1
    try:
        machine, by = topology_of(parallel, environment), place(environment).by
    except (ConfigError, HardwareError) as error:
        means = "the launcher says what cannot be" if isinstance(error, ConfigError) else "it is not there"
        yield Finding("place in the job", Status.MISSING, means, str(error), error=error)
    else:
        ranks = machine.ranks_per_node
        where = f"{counted(ranks, 'rank')} on {machine.device}" + (" each" if machine.nodes > 1 else "")
        among = f"node {machine.node_rank} of {machine.nodes}" if machine.nodes > 1 else "one node"
        leader = f", led from {machine.leader}:{machine.port}" if machine.nodes > 1 else ""
        yield Finding("place in the job", Status.OK, f"{among}, {where}{leader}", f"as said by {by}" if by else "")
        if machine.nodes > 1:
            yield leader_name(machine.leader)
    yield memory(available_bytes(), ranks)
    yield cores(usable_cores(), ranks)
    yield shared_memory(shm, ranks)
    yield open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield from of_disk(stopped)
    yield packages(versions(NEEDED))


def leader_name(leader: str) -> Finding:
    try:
        found = sorted({str(address[0]) for *_, address in socket.getaddrinfo(leader, None)})
    except OSError as error:
        told = f"{leader}: {error.strerror or error}; set SFT_JOB_LEADER to an address of node 0"
        return Finding("the leader's name", Status.MISSING, "nodes cannot meet", told, error=HardwareError(told))
    return Finding("the leader's name", Status.OK, "nodes know where to meet", ", ".join(found))


def memory(free_bytes: int, ranks: int) -> Finding:
    seen = f"{spoken_bytes(free_bytes)} to be had, its control group counted"
    if free_bytes < ranks * LITTLE_MEMORY_BYTES:
        return Finding("memory", Status.WARNING, f"little for {counted(ranks, 'rank')}: about 4 GB each is usual", seen)
    return Finding("memory", Status.OK, "weights are read through it, and checkpoints are copied to it", seen)


def cores(count: int, ranks: int) -> Finding:
    seen = f"{count} of {os.cpu_count() or 1}"
    if count < ranks + 1:
        return Finding(
            "cores", Status.WARNING, "ranks and uploads share them: grant one more than there are ranks", seen
        )
    return Finding("cores", Status.OK, "enough for the ranks, uploads and checkpoints", seen)


def shared_memory(shm: Path, ranks: int) -> Finding:
    name = str(shm)
    try:
        size, _, free = shutil.disk_usage(shm)
    except OSError as error:
        return Finding(name, Status.WARNING, "ranks on one machine cannot share memory", error.strerror or str(error))
    seen = f"{spoken_bytes(free)} of {spoken_bytes(size)} free"
    if free < SHM_BYTES and ranks > 1:
        told = "little for several ranks: docker --shm-size, or an emptyDir with medium Memory there"
        return Finding(name, Status.WARNING, told, seen)
    return Finding(name, Status.OK, "ranks exchange through it, and a checkpoint may wait in it", seen)


def open_files(soft: int, hard: int) -> Finding:
    limit = soft if soft != resource.RLIM_INFINITY else hard
    seen = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    if limit != resource.RLIM_INFINITY and limit < OPEN_FILES:
        return Finding("open files", Status.WARNING, "few: raise it with ulimit -n, or LimitNOFILE", seen)
    return Finding("open files", Status.OK, "enough for connections and shards", seen)


def packages(found: Mapping[str, str]) -> Finding:
    lacking = [name for name in NEEDED if name not in found]
    seen = ", ".join(f"{name} {version}" for name, version in found.items())
    if lacking:
        told = f"pip install sft-job brings {', '.join(lacking)}"
        error = HardwareError(told)
        return Finding("packages", Status.MISSING, told, f"{', '.join(lacking)} not installed", error=error)
    return Finding("packages", Status.OK, "everything a run imports is installed", seen)
