"""Uploads go on beside training: one in flight, the newest that waits, and no failure of the store ends training."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import Fenced, StorageError
from job.storage.attempts import Owner
from job.storage.checkpoints import commit_keys, read_commit, step_of
from job.storage.committer import Committer, Evaluations
from job.storage.memory import MemoryStore
from job.storage.store import ObjectStore
from tests.committing import SOURCE, claimed, refusing
from tests.hooked_store import HookedStore


def best_step(evaluations: Evaluations) -> int | None:
    return min(evaluations, key=lambda done: (done["eval_loss"], done["step"]))["step"] if evaluations else None


class Bench:
    """A committer over a store whose uploads can be held up, and snapshots to give it."""

    def __init__(self, tmp_path: Path, store: ObjectStore, by: Owner | None = None, **fields: Any) -> None:
        self.said: list[str] = []
        self.folder = tmp_path / "snapshots"
        by = by or claimed(store)
        values = {"parent": None, "evaluations": [], "keep": 10, "best_step": best_step, "say": self.said.append}
        self.committer = Committer(store, by, SOURCE, **{**values, **fields})

    def offer(self, step: int, evaluations: Evaluations | None = None) -> Path:
        """As the supervisor does: with whatever else lies there."""
        folder = self.folder / f"step-{step:08d}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": step, "evaluations": evaluations or []}))
        (folder / "trainable.safetensors").write_bytes(b"x" * step)
        self.committer.offer([(int(path.name[5:]), path) for path in sorted(self.folder.iterdir())])
        return folder


class Gate:
    """Holds the first operation of a kind until it is opened."""

    def __init__(self, operation: str = "upload") -> None:
        self.operation, self.reached, self.open = operation, threading.Event(), threading.Event()

    def __call__(self, operation: str, key: str) -> None:
        if operation == self.operation:
            self.reached.set()
            assert self.open.wait(60)


def steps(store: ObjectStore) -> list[int]:
    return sorted(step_of(key) for key in commit_keys(store))


def test_a_snapshot_is_committed_and_then_deleted_here(any_store: ObjectStore, tmp_path: Path) -> None:
    bench = Bench(tmp_path, any_store, parent="commits/0000-00000001.json")
    folder = bench.offer(10, [{"step": 10, "eval_loss": 2.0}])
    assert bench.committer.drain(60)
    assert not folder.exists()
    (done,) = bench.committer.take()
    assert bench.committer.take() == []
    assert (done.step, done.key, bench.committer.parent, bench.committer.last_step) == (
        10,
        "commits/0001-00000010.json",
        done.key,
        10,
    )
    assert done.size_bytes > 10
    record = read_commit(any_store, done.key)
    assert record.parent == "commits/0000-00000001.json"
    assert record.evaluations == bench.committer.evaluations == [{"step": 10, "eval_loss": 2.0}]


def test_each_commit_names_the_one_before_as_its_parent(tmp_path: Path) -> None:
    store = MemoryStore()
    bench = Bench(tmp_path, store)
    for step in (10, 20, 30):
        bench.offer(step)
        assert bench.committer.drain(60)
    parents = [read_commit(store, key).parent for key in commit_keys(store)]
    assert parents == ["commits/0001-00000020.json", "commits/0001-00000010.json", None]


def test_one_is_in_flight_and_of_those_that_wait_the_newest_wins(tmp_path: Path) -> None:
    gate = Gate()
    store = HookedStore(MemoryStore(), before=gate)
    bench = Bench(tmp_path, store)
    bench.offer(10)
    assert gate.reached.wait(60)
    overtaken = [bench.offer(20), bench.offer(30)]
    newest = bench.offer(40)
    assert [folder.exists() for folder in overtaken] == [False, False] and newest.exists()
    assert steps(store) == [] and not bench.committer.drain(0.05)
    gate.open.set()
    assert bench.committer.drain(60)
    assert steps(store) == [10, 40]
    assert [done.step for done in bench.committer.take()] == [10, 40]


def test_a_snapshot_is_never_committed_twice(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, HookedStore(MemoryStore(), before=gate))
    folder = bench.offer(10)
    assert gate.reached.wait(60)
    for _ in range(3):  # it still lies there while it goes up
        bench.committer.offer([(10, folder)])
    gate.open.set()
    assert bench.committer.drain(60)
    assert len(bench.committer.take()) == 1


def test_a_store_that_fails_is_said_and_the_next_snapshot_is_tried(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store)
    store.before = refusing({"upload"})
    failed = bench.offer(10)
    assert bench.committer.drain(60)
    assert not failed.exists() and bench.committer.take() == []
    assert isinstance(bench.committer.last_error, StorageError)
    assert len(bench.said) == 1 and "step 10 was not committed, training goes on" in bench.said[0]
    store.before = lambda operation, key: None
    bench.offer(20)
    assert bench.committer.drain(60)
    assert bench.committer.last_error is None and steps(store) == [20]


def test_a_surprise_is_said_like_any_failure(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store)
    store.before = refusing({"upload"}, error=ValueError("surprise"))
    bench.offer(10)
    assert bench.committer.drain(60)
    assert "ValueError: surprise" in bench.said[0] and bench.committer.last_error is not None
    store.before = lambda operation, key: None
    bench.offer(20)
    assert bench.committer.drain(60) and steps(store) == [20]


@pytest.mark.parametrize("error", [StorageError("AccessDenied"), ValueError("surprise")])
def test_a_commit_stands_when_the_pruning_behind_it_fails_and_that_is_said_once(
    tmp_path: Path, error: Exception
) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store, keep=1)
    store.before = refusing({"delete", "stat"}, error=error)
    for step in (10, 20, 30):
        bench.offer(step)
        assert bench.committer.drain(60)
    assert bench.committer.last_error is None
    assert [done.step for done in bench.committer.take()] == [10, 20, 30]
    assert len(bench.said) == 1 and str(error) in bench.said[0]


def test_old_commits_are_pruned_behind_each_new_one(tmp_path: Path) -> None:
    store = MemoryStore()
    bench = Bench(tmp_path, store, keep=2)
    evaluations = [{"step": 20, "eval_loss": 1.0}]
    for step in (10, 20, 30, 40, 50):
        bench.offer(step, [done for done in evaluations if done["step"] <= step])
        assert bench.committer.drain(60)
    assert steps(store) == [20, 40, 50]


def test_drain_gives_up_when_its_time_is_over(tmp_path: Path) -> None:
    gate = Gate()
    bench = Bench(tmp_path, HookedStore(MemoryStore(), before=gate))
    assert bench.committer.drain(0)
    bench.offer(10)
    assert not bench.committer.drain(0.1)
    gate.open.set()
    assert bench.committer.drain(None)


@pytest.mark.parametrize("call", ["offer", "drain"])
def test_a_newer_attempt_surfaces_wherever_the_supervisor_asks_next(tmp_path: Path, call: str) -> None:
    store = MemoryStore()
    bench = Bench(tmp_path, store)
    claimed(store, 2)
    folder = bench.offer(10)
    wait_until(lambda: not folder.exists())
    for _ in range(2):
        with pytest.raises(Fenced):
            bench.committer.drain(60) if call == "drain" else bench.committer.offer([])
    assert steps(store) == []


def test_a_newer_attempt_that_the_pruning_meets_surfaces_too(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store)

    def overtake(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key.startswith("commits/"):
            claimed(store.inner, 2)

    store.after = overtake
    bench.offer(10)
    with pytest.raises(Fenced):
        bench.committer.drain(60)
    assert [done.step for done in bench.committer.take()] == [10]


# ---- where the result is made of the best evaluation's commit


def test_the_best_is_committed_though_a_newer_snapshot_waits(tmp_path: Path) -> None:
    gate = Gate()
    store = HookedStore(MemoryStore(), before=gate)
    bench = Bench(tmp_path, store, needs_best=True)
    bench.offer(10)
    assert gate.reached.wait(60)
    evaluations = [{"step": 20, "eval_loss": 1.0}, {"step": 30, "eval_loss": 3.0}]
    bench.offer(20, evaluations[:1])
    overtaken = bench.offer(30, evaluations)
    bench.offer(40, evaluations)
    assert not overtaken.exists()
    gate.open.set()
    assert bench.committer.drain(60)
    assert steps(store) == [10, 20, 40]


def test_no_commit_ever_names_a_best_step_that_was_not_committed(tmp_path: Path) -> None:
    """The best fails to go up; it goes up before any later one does."""
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store, needs_best=True)
    evaluations = [{"step": 10, "eval_loss": 1.0}]
    store.before = refusing({"upload"}, "step-10-")
    best = bench.offer(10, evaluations)
    assert bench.committer.drain(60) and best.exists()
    bench.offer(20, evaluations)
    assert bench.committer.drain(60)
    assert steps(store) == [] and isinstance(bench.committer.last_error, StorageError)
    store.before = lambda operation, key: None
    bench.offer(30, evaluations)
    assert bench.committer.drain(60)
    assert steps(store) == [10, 30] and not best.exists() and bench.committer.last_error is None


def test_a_best_that_could_not_be_committed_is_dropped_for_a_better_one(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store, needs_best=True)
    store.before = refusing({"upload"}, "step-10-")
    best = bench.offer(10, [{"step": 10, "eval_loss": 1.0}])
    assert bench.committer.drain(60)
    bench.offer(20, [{"step": 10, "eval_loss": 1.0}, {"step": 20, "eval_loss": 0.5}])
    assert bench.committer.drain(60)
    assert steps(store) == [20] and not best.exists()


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
