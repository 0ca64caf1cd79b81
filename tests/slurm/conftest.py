"""One cluster for all tests of a worker, a folder to submit from, and what every run needs."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.tiny import make, write_demo_chat
from tests.harness import ROOT
from tests.slurm.alone import Alone
from tests.slurm.cluster import Cluster, missing
from tests.slurm.pace import HOOKS
from tests.slurm.submitting import Desk
from tests.tiny_runs import TinyRuns

STEPS = 300  # few seconds, but for a job that was told to be slow
CONFIG = """
run: {root}/runs/default
model: {{base: "{inputs}/base"}}
data: {{train: ["{inputs}/chat.jsonl"], max_length: 64}}
lora: null
train: {{max_steps: {steps}, global_batch_size: 8, learning_rate: 1e-3, logging_steps: 10}}
checkpoint: {{every: 25 steps, keep: 3}}
hooks: {root}/hooks.py
parallel: {{device: cpu}}
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if why := missing():
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with Cluster() as running:
        program = running.folder / "bin" / "sft-job"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m job "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        yield running
    assert not running.processes(), "left by the cluster"


@pytest.fixture(scope="session")
def inputs(cluster: Cluster) -> Path:
    """A base and chats where every user can read them."""
    root = cluster.folder / "inputs"
    make(root / "base")
    write_demo_chat(root / "chat.jsonl")
    for file in root.rglob("*"):
        file.chmod(file.stat().st_mode | 0o444)
    return root


@pytest.fixture
def desk(cluster: Cluster) -> Iterator[Desk]:
    with desk_on(cluster) as at:
        yield at


@contextlib.contextmanager
def desk_on(cluster: Cluster) -> Iterator[Desk]:
    """Jobs that a failed test left do not meet the next one."""
    folder = cluster.folder / "desks" / secrets.token_hex(4)
    folder.mkdir(parents=True)
    at = Desk(cluster, folder)
    try:
        yield at
    finally:
        at.clear()
        shutil.rmtree(folder, ignore_errors=True)


def tiny_runs(root: Path, inputs: Path) -> TinyRuns:
    """Run folders in `root`, on the shared filesystem."""
    (root / "home").mkdir(parents=True)
    config = CONFIG.format(root=root, inputs=inputs, steps=STEPS)
    (root / "home" / "run.yaml").write_text(config, encoding="utf-8")
    (root / "hooks.py").write_text(HOOKS, encoding="utf-8")
    return TinyRuns(str(root), root / "home", {"SFT_JOB_ALLOW_CODE": "1"})


@pytest.fixture
def runs(desk: Desk, inputs: Path) -> TinyRuns:
    return tiny_runs(desk.folder, inputs)


@pytest.fixture(scope="session")
def alone(cluster: Cluster, inputs: Path) -> Iterator[Alone]:
    """What every run of one node is to end as."""
    with Alone(tiny_runs(cluster.folder / "alone", inputs), ranks=1) as run:
        yield run


@pytest.fixture(scope="session")
def two_alone(cluster: Cluster, inputs: Path) -> Iterator[Alone]:
    """The same of two ranks, of one node or of two."""
    with Alone(tiny_runs(cluster.folder / "two-alone", inputs), ranks=2) as run:
        yield run
