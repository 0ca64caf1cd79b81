"""Real runs that are stopped, killed and started again: what they upload, how fast they leave and return, what is lost.

LoRA on a random Gemma of some million parameters, checkpoints every few steps, every step logged. TERM and KILL of the
supervisor come in turns at times of their own; every start but the first one resumes.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import boto3

from job import tiny
from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.store import ObjectStore
from tests.bench import rank_phases
from tests.harness import Job
from tests.servers import KEYS, moto_server
from tests.tiny_runs import TinyRuns

EVERY_STEPS = 10
HIDDEN, LAYERS = 256, 4
SEED = 7


@dataclass
class Found:
    """Of one store; seconds and steps, one for each interruption."""

    leave: list[float] = field(default_factory=list)  # from TERM to exit 75
    starts: list[dict[str, float]] = field(default_factory=list)  # by phase, to the first resumed step
    lost_at_term: list[int] = field(default_factory=list)
    lost_at_kill: list[int] = field(default_factory=list)
    uploads: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # (steps, files, bytes) of each commit that stands
    state_bytes: int = 0  # trainable and optimizer tensors
    tensors: set[str] = field(default_factory=set)
    base_bytes: int = 0


@contextmanager
def places(folder: Path) -> Iterator[dict[str, TinyRuns]]:
    """The same inputs in a folder and on S3."""
    hidden, layers = tiny.HIDDEN, tiny.LAYERS
    tiny.HIDDEN, tiny.LAYERS = HIDDEN, LAYERS
    try:
        tiny.make(folder / "base")
    finally:
        tiny.HIDDEN, tiny.LAYERS = hidden, layers
    tiny.write_demo_chat(folder / "chat.jsonl")
    with moto_server(folder / "moto.log") as endpoint:
        env = {**KEYS, "AWS_ENDPOINT_URL": endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.update(env)  # for this process's own look at the store
        client = boto3.client("s3")
        client.create_bucket(Bucket="bench")
        for path in [*(folder / "base").iterdir(), folder / "chat.jsonl"]:
            client.upload_file(str(path), "bench", str(path.relative_to(folder)))
        found = {}
        for name, root, extra in (("folder", str(folder), {}), ("S3", "s3://bench", env)):
            watched = {**extra, **rank_phases.environment_for(folder / f"phases-{name}")}
            found[name] = TinyRuns(root, folder / f"home-{name}", watched)
            found[name].write_config("{r: 16, alpha: 32, dropout: 0.0}")
        yield found


FIELDS: Mapping[str, Any] = {
    "data__eval": None,
    "train__max_steps": 100_000,
    "train__global_batch_size": 4,
    "train__eval_steps": 100_000,
    "checkpoint__every": f"{EVERY_STEPS} steps",
}


def interrupted(place: TinyRuns, store: ObjectStore, folder: Path, turns: int) -> Found:
    """`turns` times TERM and `turns` times KILL. `folder`: of the rank's phases."""
    found, chance, done = Found(), random.Random(SEED), 0
    for turn in range(2 * turns + 1):
        began = time.time()
        job = place.job("bench", **FIELDS)
        job.wait_for_step(done + 1)
        if turn > 0:
            found.starts.append(phases(began, time.time(), folder))
        job.wait_for_step(done + EVERY_STEPS + 2)
        time.sleep(chance.uniform(0, 2))
        if turn % 2 == 0:
            asked = time.monotonic()
            job.signal(signal.SIGTERM)
            assert job.process.wait(120) == ExitCode.STOPPED, job.said()
            found.leave.append(time.monotonic() - asked)
        else:
            job.signal(signal.SIGKILL)
        job.ended()
        last = last_step(job)
        done = read_commit(store, commit_keys(store)[0]).step
        lost = max(0, last - done)
        (found.lost_at_term if turn % 2 == 0 else found.lost_at_kill).append(lost)
    count_uploads(store, place, found)
    return found


def last_step(job: Job) -> int:
    return max(int(step) for step in re.findall(r"step (\d+)/\d+  loss", job.said()))


def phases(began: float, ended: float, folder: Path) -> dict[str, float]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            rank_began, seconds = rank_phases.spent(folder)
        except (ValueError, FileNotFoundError):
            rank_began, seconds = 0.0, {}
        if rank_began > began:
            return {"start and pull": rank_began - began, **seconds, "in all": ended - began}
        time.sleep(0.05)
    raise AssertionError("the rank did not say where its time went")


def count_uploads(store: ObjectStore, place: TinyRuns, found: Found) -> None:
    """Every object below the folder of each commit that stands, as the store lists them."""
    for key in commit_keys(store):
        commit = read_commit(store, key)
        entries = list(store.list(f"{commit.folder}/"))
        found.uploads.append((commit.step, len(entries), sum(entry.size for entry in entries)))
        for entry in entries:
            if entry.key.endswith(".safetensors"):
                header = safetensors_header(store.get(entry.key))
                found.tensors.update(header)
                if entry.key.endswith("trainable.safetensors"):
                    found.state_bytes = 3 * sum(4 * prod(tensor["shape"]) for tensor in header.values())
    found.base_bytes = (place.home.parent / "base" / "model.safetensors").stat().st_size


def safetensors_header(data: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header
