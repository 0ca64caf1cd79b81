"""A process that waits inside a library still shows its stacks; one that is stopped is named with its state."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.host.stacks import stacks
from job.rundir import RunDir
from tests.harness import environment

WAITS = """
import sys, time
from pathlib import Path
from job.rundir import RunDir
from job.training.process import show_stacks_when_asked
run, rank = RunDir(Path(sys.argv[1])), int(sys.argv[2])
show_stacks_when_asked(run, rank)
def waits_for_a_peer():
    run.log(f"ready-{rank}").touch()
    time.sleep(300)
waits_for_a_peer()
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[dict[int, int]]:
    command = [sys.executable, "-c", WAITS, str(tmp_path)]
    started = [subprocess.Popen([*command, str(rank)], env=environment(tmp_path)) for rank in (0, 1)]
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready-{rank}.log").exists() for rank in (0, 1)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield {rank: process.pid for rank, process in enumerate(started)}
    for process in started:
        process.kill()
        process.wait()


def test_every_rank_shows_where_it_is(ranks: dict[int, int], tmp_path: Path) -> None:
    text = stacks(RunDir(tmp_path), ranks)
    assert text.count("waits_for_a_peer") == 2
    assert all(f"rank {rank} (pid {pid}, sleeping" in text for rank, pid in ranks.items())


def test_a_stopped_rank_is_named_beside_one_that_answers(ranks: dict[int, int], tmp_path: Path) -> None:
    os.kill(ranks[1], signal.SIGSTOP)
    text = stacks(RunDir(tmp_path), ranks)
    assert text.count("waits_for_a_peer") == 1
    assert f"rank 1 (pid {ranks[1]}, stopped" in text and "does not answer" in text


def test_a_rank_that_is_gone_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert "does not answer" in stacks(RunDir(tmp_path), {0: process.pid})
