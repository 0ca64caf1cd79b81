"""Ranks compare what they came for before anything else: real processes on a real store."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.host.launcher import free_port
from job.rundir import Spec
from job.training.peers import Facts, difference

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, os, sys
import torch, torch.distributed as dist
from job.errors import JobError
from job.rundir import Spec
from job.training.peers import meet
told = json.loads(sys.argv[1])
try:
    meet(Spec(**told["spec"]), told["fingerprint"], torch.device("cpu"))
    one = torch.ones(1)
    dist.all_reduce(one)
    print(int(one))
except JobError as error:
    print(f"{int(error.exit_code)} {error}")
sys.stdout.flush()
os._exit(0)
"""


def spec(**other: Any) -> dict[str, Any]:
    made = Spec({}, 3, "abc", "base", 40, wait_seconds=20.0, launch=2)
    return {**made.__dict__, **other}


def said(*ranks: dict[str, Any] | None, fingerprints: tuple[str, ...] = ()) -> list[str]:
    """What each rank says; one that is None never comes."""
    port = free_port()
    started = []
    for rank, told in enumerate(ranks):
        if told is None:
            continue
        fingerprint = fingerprints[rank] if fingerprints else "f"
        environment = {"RANK": rank, "WORLD_SIZE": len(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, json.dumps({"spec": told, "fingerprint": fingerprint})],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    return [process.communicate(timeout=120)[0].strip() for process in started]


def test_ranks_of_one_launch_meet() -> None:
    assert said(spec(), spec(), spec()) == ["3", "3", "3"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"resume_step": 30}, "rank 1 has another resume step than rank 0: 30, not 40"),
        ({"resume_step": None}, "rank 1 has another resume step than rank 0: None, not 40"),
    ],
)
def test_one_that_would_go_on_from_another_step_ends_all_with_its_reason(other: dict[str, Any], words: str) -> None:
    assert said(spec(), spec(**other)) == [f"70 {words}"] * 2


def test_one_with_other_rows_ends_all_with_its_reason() -> None:
    told = said(spec(), spec(), fingerprints=("f", "g"))
    assert told == ["70 rank 1 has other prepared rows than rank 0: g, not f"] * 2


def test_one_of_an_older_attempt_leaves_and_the_others_wait_for_theirs() -> None:
    older, leads = spec(attempt=2, nonce="old"), spec(wait_seconds=3.0)
    first, second = said(leads, older)
    assert second == (
        "70 rank 1 was started for launch 2 of attempt 2 (old), but here runs launch 2 of attempt 3 (abc): it leaves"
    )
    assert first.startswith("70 not all 2 ranks met at 127.0.0.1:") and "within 3 s" in first


def test_who_waits_in_vain_says_where_and_how_long() -> None:
    (alone,) = said(spec(wait_seconds=2.0), None)
    assert alone.startswith("70 not all 2 ranks met at 127.0.0.1:") and "within 2 s" in alone


def test_each_difference_is_named() -> None:
    ours = Facts(1, "n", 1, "f", None)
    assert difference(Facts(1, "n", 1, "g", None), ours) == "has other prepared rows than rank 0: g, not f"
