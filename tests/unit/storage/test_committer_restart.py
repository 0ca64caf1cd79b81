"""Ranks that begin again in place offer the same steps once more."""

from pathlib import Path

import pytest

from job.errors import StorageError
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.memory import MemoryStore
from tests.committing import claimed, committed, flip, refusing, restored
from tests.hooked_store import HookedStore
from tests.unit.storage.test_committer import Bench, steps


def test_a_step_whose_commit_failed_is_committed_when_it_is_reached_again(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    bench = Bench(tmp_path, store)
    bench.offer(10)
    assert bench.committer.drain(60)
    store.before = refusing({"upload"})
    bench.offer(20)
    assert bench.committer.drain(60) and bench.committer.last_error is not None
    store.before = lambda operation, key: None
    bench.committer.go_on_from(commit_keys(store)[0], [])
    assert bench.committer.last_error is None
    bench.offer(20)
    assert bench.committer.drain(60) and steps(store) == [10, 20]
    assert read_commit(store, commit_keys(store)[0]).parent == "commits/0001-00000010.json"


def test_a_commit_of_ones_own_that_was_found_damaged_is_never_taken_for_the_new_one(tmp_path: Path) -> None:
    """The key is used up; the next checkpoint has another."""
    store = MemoryStore()
    by = claimed(store)
    committed(store, tmp_path, by, 10)
    flip(store, read_commit(store, committed(store, tmp_path, by, 20)))
    assert restored(store, tmp_path, attempt=1) == 10
    with pytest.raises(StorageError, match=r"0001-00000020\.json exists already: this attempt found it damaged"):
        committed(store, tmp_path, by, 20)
    committed(store, tmp_path, by, 30)
    assert restored(store, tmp_path) == 30
