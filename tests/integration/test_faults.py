"""Whole runs on an S3 store that is away for a while, refuses, knows less than S3, or damages what it carries."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, step_of
from job.storage.records import COMMIT_KEY
from job.storage.store import open_store
from job.tiny import make, write_demo_chat
from tests.harness import Job
from tests.servers import Bucket, Fault, FaultyProxy
from tests.tiny_runs import TinyRuns, final_tensors

pytestmark = pytest.mark.slow

STEPS = 100
PATIENCE_SECONDS = 250
REFUSED: dict[str, Any] = {"status": 403, "code": "AccessDenied"}
Tensors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    make(root / "base")
    write_demo_chat(root / "chat.jsonl")
    return root


@pytest.fixture(scope="module")
def calm(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tensors]:
    """What the same run makes in a folder, where nothing happens."""
    root = tmp_path_factory.mktemp("calm")
    for name in ("base", "chat.jsonl"):
        (root / name).symlink_to(inputs / name)
    place = TinyRuns(str(root), root / "home", {})
    place.write_config("{r: 8, alpha: 16, dropout: 0.1}")
    assert ended(start(place, "calm")) == 0
    yield final_tensors(place.store("calm"), root / "final")


@pytest.fixture
def runs(inputs: Path, s3: Bucket, faulty: FaultyProxy, tmp_path: Path) -> TinyRuns:
    """Everything in a bucket behind the proxy."""
    store = open_store(s3.uri)
    for file in sorted((inputs / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(inputs / "chat.jsonl", "chat.jsonl")
    place = TinyRuns(s3.uri, tmp_path / "home", {"AWS_ENDPOINT_URL": faulty.endpoint})
    place.write_config("{r: 8, alpha: 16, dropout: 0.1}")
    return place


def start(place: TinyRuns, name: str, **fields: Any) -> Job:
    return place.job(name, train__max_steps=STEPS, **fields)


def ended(job: Job) -> int:
    return job.ended(PATIENCE_SECONDS)


def killed_after(job: Job, step: int) -> None:
    job.wait_for_commit(step)
    job.process.kill()
    ended(job)


def assert_same(calm: Tensors, place: TinyRuns, name: str, folder: Path) -> None:
    made = final_tensors(place.store(name), folder)
    assert made.keys() == calm.keys() and made
    assert [name for name in calm if calm[name].tobytes() != made[name].tobytes()] == []


def order(said: str, *patterns: str) -> None:
    """The patterns are found one after the other."""
    at = 0
    for pattern in patterns:
        found = re.compile(pattern).search(said, at)
        assert found, f"no {pattern!r} after\n{said[:at]}\nin\n{said}"
        at = found.end()


def test_training_goes_on_while_uploads_are_retried_and_the_result_is_that_of_a_calm_run(
    runs: TinyRuns, faulty: FaultyProxy, calm: Tensors, tmp_path: Path
) -> None:
    job = start(runs, "outage")
    job.wait_for_commit(10)
    for outage in (Fault("status", match="^(PUT|POST) ", code="ServiceUnavailable"), Fault("reset", match="^P")):
        said = len(job.said())
        faulty.faults.append(outage)
        job.wait_for(rf"(?s)^.{{{said}}}.*trying again in")
        before = max(int(step) for step in re.findall(r"step (\d+)/\d+  loss", job.said()))
        job.wait_for_step(min(before + 5, STEPS))
        faulty.faults.clear()
    assert ended(job) == 0, job.said()
    order(job.said(), r"trying again in", rf"step \d+/{STEPS}  loss", rf"step \d+/{STEPS}  committed")
    assert step_of(commit_keys(runs.store("outage"))[0]) == STEPS
    assert_same(calm, runs, "outage", tmp_path / "made")


def test_a_run_that_loses_its_permission_leaves_with_74_on_its_last_commit_and_goes_on_when_it_has_it_again(
    runs: TinyRuns, faulty: FaultyProxy, calm: Tensors, tmp_path: Path
) -> None:
    job = start(runs, "refused")
    job.wait_for_commit(20)
    faulty.faults.append(Fault("status", match="/runs/refused", **REFUSED))
    for later in (job, start(runs, "refused")):
        assert ended(later) == ExitCode.STORAGE, later.said()
        assert "refused by" in later.said().splitlines()[-1] and "credentials" in later.said().splitlines()[-1]
    assert "fresh start" not in later.said(), "403 is never a fresh run"
    faulty.faults.clear()
    stands = commit_keys(runs.store("refused"))[0]
    last = start(runs, "refused")
    assert ended(last) == 0, last.said()
    assert step_of(stands) >= 20 and f"resumed from step {step_of(stands)} ({stands}" in last.said()
    assert_same(calm, runs, "refused", tmp_path / "made")


def test_a_run_on_a_store_that_overwrites_in_spite_of_a_condition_works_and_says_what_is_lost(
    runs: TinyRuns, faulty: FaultyProxy, calm: Tensors, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("unconditional", match="(?s)^PUT .*if-none-match"))
    first = start(runs, "unconditional")
    killed_after(first, 20)
    keys = commit_keys(runs.store("unconditional"))
    assert keys and all((match := COMMIT_KEY.fullmatch(key)) and match[3] for key in keys), "the nonce is in the key"
    last = start(runs, "unconditional")
    assert ended(last) == 0, last.said()
    assert "no conditional PUT" in first.said() and "no conditional PUT" in last.said()
    assert "resumed from step" in last.said()
    assert_same(calm, runs, "unconditional", tmp_path / "made")


def test_a_run_that_may_neither_delete_nor_list_beyond_its_folder_works_and_says_what_stays(
    runs: TinyRuns, faulty: FaultyProxy
) -> None:
    """As AWS has it: what is missing is refused, too, to whoever may not list the whole bucket."""
    faulty.faults += [
        Fault("status", match=r"^(POST .*\?delete|DELETE )", **REFUSED),
        Fault("status", match=r"list-type=2(?!.*prefix=runs%2Fnarrow%2F)", **REFUSED),
        Fault("status", match=r"^HEAD /[^/]+\n", **REFUSED),
        Fault("hide", match="/runs/narrow/"),
    ]
    job = start(runs, "narrow", checkpoint__keep=1)
    assert ended(job) == 0, job.said()
    assert len(re.findall("old checkpoints were not deleted: .*may delete here", job.said())) == 1, job.said()
    assert f"finished: adapter of step {STEPS}" in job.said()
    faulty.faults.clear()
    assert len(commit_keys(runs.store("narrow"))) > 1, "more than are kept otherwise"


def test_a_byte_that_flips_once_on_its_way_costs_no_commit(
    runs: TinyRuns, faulty: FaultyProxy, calm: Tensors, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("flip_upload", match="^PUT .*/runs/flipped/.*safetensors", times=1))
    killed_after(start(runs, "flipped"), 20)
    newest = commit_keys(runs.store("flipped"))[0]
    for name in ("trainable", "optimizer"):
        faulty.faults.append(Fault("flip", match=f"^GET .*/runs/flipped/checkpoints/.*{name}", times=1))
    last = start(runs, "flipped")
    assert ended(last) == 0, last.said()
    assert [fault.times for fault in faulty.faults] == [0, 0, 0], "all faults were met"
    assert f"({newest}, by attempt 1" in last.said()
    assert runs.store("flipped").list("damaged/") == []
    assert_same(calm, runs, "flipped", tmp_path / "made")
