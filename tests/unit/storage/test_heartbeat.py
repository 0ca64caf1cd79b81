"""The heartbeat shows that an attempt lives, and nothing but a newer attempt ends it."""

import json
import threading
import time

import pytest

from job.errors import Fenced, StorageError
from job.storage.heartbeat import Heartbeat
from job.storage.memory import MemoryStore
from job.storage.store import ObjectStore
from tests.claiming import record, wait_until
from tests.hooked_store import HookedStore


def test_the_heartbeat_beats_and_changes_each_time(any_store: ObjectStore) -> None:
    owner = record(any_store)
    seen = set()
    with Heartbeat(any_store, owner, beat_seconds=0.02):
        seen.add(any_store.get(owner.beat_key))  # the first is there when the block begins
        wait_until(lambda: seen.add(any_store.get(owner.beat_key)) or len(seen) >= 3)
    assert all("count" in json.loads(body) for body in seen)


def test_the_heartbeat_notices_a_newer_attempt() -> None:
    store = MemoryStore()
    owner = record(store)
    with Heartbeat(store, owner, beat_seconds=0.01, fence_seconds=0.02) as heart:
        time.sleep(0.1)
        heart.check()
        record(store, 2)
        with pytest.raises(Fenced):
            wait_until(lambda: heart.check())


@pytest.mark.parametrize("error", [StorageError("503"), OSError("stale file handle"), RuntimeError("surprise")])
def test_the_heartbeat_and_its_fence_survive_puts_that_fail(error: Exception) -> None:
    failing, inner = threading.Event(), MemoryStore()

    def refuse(operation: str, key: str) -> None:
        if operation == "put" and failing.is_set():
            raise error

    store = HookedStore(inner, before=refuse)
    owner = record(store)
    with Heartbeat(store, owner, beat_seconds=0.01, fence_seconds=0.05) as heart:
        failing.set()
        time.sleep(0.1)
        heart.check()
        failing.clear()
        before = inner.get(owner.beat_key)
        wait_until(lambda: inner.get(owner.beat_key) != before)
        failing.set()
        record(inner, 2)
        with pytest.raises(Fenced):
            wait_until(lambda: heart.check())


def test_the_heartbeat_survives_a_fence_that_cannot_be_read() -> None:
    inner = MemoryStore()

    def refuse(operation: str, key: str) -> None:
        if operation == "list":
            raise StorageError("503")

    owner = record(inner)
    with Heartbeat(HookedStore(inner, before=refuse), owner, beat_seconds=0.01, fence_seconds=0.01) as heart:
        time.sleep(0.1)
        heart.check()
        before = inner.get(owner.beat_key)
        wait_until(lambda: inner.get(owner.beat_key) != before)
