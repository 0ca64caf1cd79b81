"""A run that lives is busy; one that is over is gone on with at once, or after a watch where nobody can tell."""

import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from job.errors import Busy, ExitCode, Stopped, StorageError
from job.storage import identity
from job.storage.attempts import Owner, attempts, beat, ensure_idle, write_end
from job.storage.heartbeat import Heartbeat
from job.storage.memory import MemoryStore
from job.storage.store import ObjectStore
from tests.claiming import NEVER, record, take
from tests.hooked_store import HookedStore


def test_a_beating_attempt_is_busy_and_named(any_store: ObjectStore) -> None:
    owner = record(any_store, scheduler={"SLURM_JOB_ID": "123"})
    with Heartbeat(any_store, owner, beat_seconds=0.05), pytest.raises(Busy) as caught:
        take(any_store)
    assert caught.value.exit_code == ExitCode.BUSY
    for part in (any_store.uri, "attempt 1", "node7", "SLURM_JOB_ID=123", "--take-over"):
        assert part in str(caught.value)
    assert len(attempts(any_store)) == 1


def test_a_silent_attempt_is_watched_and_then_taken_over(any_store: ObjectStore) -> None:
    beat(any_store, record(any_store), 3)
    begun = time.monotonic()
    assert take(any_store, watch_seconds=0.5).attempt == 2
    assert time.monotonic() - begun >= 0.5


def test_a_first_beat_during_the_watch_is_busy() -> None:
    store = HookedStore(MemoryStore())
    owner = record(store)
    looks = iter(range(100))

    def beat_late(operation: str, key: str) -> None:
        if key == owner.beat_key and operation == "get" and next(looks) == 3:
            store.inner.put(owner.beat_key, b"first")

    store.before = beat_late
    with pytest.raises(Busy):
        take(store)


def test_an_attempt_with_an_end_record_is_over_at_once(any_store: ObjectStore) -> None:
    write_end(any_store, record(any_store), ExitCode.STOPPED, "stopped", 7)
    assert take(any_store).attempt == 2


def test_the_same_slurm_job_goes_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    beat(store, record(store, scheduler={"SLURM_JOB_ID": "5"}), 1)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    assert take(store).attempt == 2


def test_another_slurm_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    owner = record(store, scheduler={"SLURM_JOB_ID": "5"})
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    with Heartbeat(store, owner, beat_seconds=0.02), pytest.raises(Busy):
        take(store)


def test_a_second_command_in_one_allocation_finds_the_first_one_busy(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    store = MemoryStore()
    owner = record(store, process=process_of(sleeper.pid), scheduler={"SLURM_JOB_ID": "5"})
    with Heartbeat(store, owner, beat_seconds=0.02), pytest.raises(Busy):
        take(store)


def test_a_process_that_outlived_its_life_of_the_job_is_a_zombie_and_no_owner(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    for before, now in (({}, "1"), ({"SLURM_RESTART_COUNT": "9"}, "10")):
        store = MemoryStore()
        monkeypatch.setenv("SLURM_JOB_ID", "5")
        monkeypatch.setenv("SLURM_RESTART_COUNT", now)
        owner = record(store, process=process_of(sleeper.pid), scheduler={"SLURM_JOB_ID": "5", **before})
        with Heartbeat(store, owner, beat_seconds=0.02):
            assert take(store).attempt == 2


def test_a_life_before_says_nothing_of_another_job_and_a_later_one_is_not_over(
    monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for ids in ({"SLURM_JOB_ID": "6"}, {"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "2"}):
        for boot in ({}, {"boot": "another"}):
            store = MemoryStore()
            owner = record(store, process={**process_of(sleeper.pid), **boot}, scheduler=ids)
            with Heartbeat(store, owner, beat_seconds=0.02), pytest.raises(Busy):
                take(store)


def test_a_process_of_this_host_that_is_gone_is_over_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    store = MemoryStore()
    record(store, process=process_of(sleeper.pid))
    sleeper.kill()
    sleeper.wait()
    assert take(store).attempt == 2


def test_a_dead_process_that_nobody_waited_for_is_over_at_once(sleeper: subprocess.Popen[bytes]) -> None:
    store = MemoryStore()
    record(store, process=process_of(sleeper.pid))
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert take(store).attempt == 2


def test_another_process_under_the_same_number_is_not_mistaken_for_it(sleeper: subprocess.Popen[bytes]) -> None:
    store = MemoryStore()
    record(store, process={**process_of(sleeper.pid), "started": "1"})
    assert take(store).attempt == 2


def test_the_same_number_on_another_machine_or_in_another_container_says_nothing() -> None:
    for change in ({"boot": "another"}, {"pids": "pid:[1]"}):
        store = MemoryStore()
        owner = record(store, process={**identity.this_process(), "pid": 2**22 + 1, **change})
        with Heartbeat(store, owner, beat_seconds=0.02), pytest.raises(Busy):
            take(store)


def test_an_unreadable_record_is_judged_by_its_heartbeat() -> None:
    store = MemoryStore()
    owner = Owner(1, "0" * 12)
    store.put(owner.key, b"{")
    with Heartbeat(store, owner, beat_seconds=0.02), pytest.raises(Busy, match="unreadable"):
        take(store)
    assert take(store, watch_seconds=0.1).attempt == 2


def test_a_stop_ends_the_watch() -> None:
    store = MemoryStore()
    record(store)
    calls = iter([False, False, True])
    with pytest.raises(Stopped) as caught:
        ensure_idle(store, lambda: next(calls), NEVER, 0.01)
    assert caught.value.exit_code == ExitCode.STOPPED


def test_take_over_does_not_ask() -> None:
    store = MemoryStore()
    with Heartbeat(store, record(store), beat_seconds=0.02):
        assert take(store, take_over=True).attempt == 2


def test_storage_that_refuses_is_never_taken_for_an_idle_run() -> None:
    inner = MemoryStore()
    owner = record(inner)
    for refused in ("attempts/", owner.end_key, owner.key, owner.beat_key):

        def refuse(operation: str, key: str, refused: str = refused) -> None:
            if key == refused:
                raise StorageError("403")

        with pytest.raises(StorageError):
            take(HookedStore(inner, before=refuse), watch_seconds=0.1)
    assert len(attempts(inner)) == 1


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def process_of(pid: int) -> dict[str, Any]:
    return {**identity.this_process(), **identity._process(pid)}
