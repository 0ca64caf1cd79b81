"""One attempt at a time: claims are unique, a run that lives is busy, one that is over is taken at once."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import Busy, DataError, ExitCode, Fenced, Stopped, StorageError
from job.storage import identity
from job.storage.attempts import Owner, attempts, beat, check_fence, claim, ensure_idle, has_conditional_put, write_end
from job.storage.heartbeat import Heartbeat
from job.storage.memory import MemoryStore
from job.storage.records import AttemptRecord
from job.storage.store import Entry, ObjectStore
from tests.hooked_store import HookedStore

NEVER = 3600.0  # a watch of this length would run into the test's time-out


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in identity.SCHEDULER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def take(store: ObjectStore, watch_seconds: float = NEVER, take_over: bool = False) -> Owner:
    return claim(
        store,
        {},
        "0",
        take_over=take_over,
        stopped=lambda: False,
        watch_seconds=watch_seconds,
        poll_seconds=0.02,
    )


def record(store: ObjectStore, number: int = 1, **fields: Any) -> Owner:
    """An attempt of another machine, unless `fields` say something else."""
    owner = Owner(number, "0" * 12)
    of_elsewhere = {"boot": "another", "pids": "pid:[1]", "pid": 4711, "started": "1"}
    values = {"host": "node7", "process": of_elsewhere, "scheduler": {}, "created": "", "version": "0", "config": {}}
    made = AttemptRecord.model_validate({"attempt": number, "nonce": owner.nonce, **values, **fields})
    assert store.put_if_absent(owner.key, made.dump())
    return owner


# ---- claims


def test_claims_at_once_never_get_the_same_number(any_store: ObjectStore) -> None:
    owners = in_threads(8, lambda: take(any_store, take_over=True))
    assert sorted(owner.attempt for owner in owners) == list(range(1, 9))
    for owner in owners:
        assert AttemptRecord.parse(any_store.get(owner.key), "").nonce == owner.nonce


def test_of_claims_at_once_only_one_begins_and_the_others_find_it_busy(any_store: ObjectStore) -> None:
    """Nobody may take number 2 for having listed just after number 1 was taken."""
    over = threading.Event()

    def attempt() -> Owner | Busy:
        try:
            owner = take(any_store)
        except Busy as busy:
            return busy
        with Heartbeat(any_store, owner, beat_seconds=0.05):
            over.wait(60)
        return owner

    results: list[Owner | Busy] = []
    threads = [threading.Thread(target=lambda: results.append(attempt())) for _ in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(results) == 5)
    over.set()
    for thread in threads:
        thread.join()
    assert [owner.attempt for owner in results if isinstance(owner, Owner)] == [1]
    assert [owner.attempt for owner in attempts(any_store)] == [1]


def test_claims_of_many_processes_never_get_the_same_number(tmp_path: Path) -> None:
    """On a folder, where the filesystem decides."""
    code = (
        "import sys; from pathlib import Path; from job.storage.folder import FolderStore\n"
        "from job.storage.attempts import claim\n"
        "store = FolderStore(Path(sys.argv[1])); sys.stdin.readline()\n"
        "owners = [claim(store, {}, '0', take_over=True, stopped=lambda: False) for _ in range(4)]\n"
        "print(*(owner.attempt for owner in owners))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    numbers = [int(number) for process in processes for number in process.communicate(timeout=60)[0].split()]
    assert sorted(numbers) == list(range(1, 33))


def test_a_store_without_conditional_writes_is_found_out(any_store: ObjectStore) -> None:
    assert has_conditional_put(any_store)
    assert has_conditional_put(any_store), "the second look, which finds the first one's object"
    careless = MemoryStore(conditional=False)
    assert not has_conditional_put(careless)
    assert not has_conditional_put(careless)


def test_without_conditional_writes_exactly_one_of_two_claims_at_once_stays_unfenced() -> None:
    store = HookedStore(MemoryStore(conditional=False))
    together = threading.Barrier(2)
    written = threading.Barrier(2)

    def meet(operation: str, key: str) -> None:
        if operation == "put_if_absent" and "-" in key:
            together.wait(30)

    store.before = meet
    for turn in range(1, 4):

        def rival() -> Owner | Fenced:
            owner = take(store, take_over=True)
            written.wait(30)
            try:
                check_fence(store, owner)
            except Fenced as fenced:
                return fenced
            return owner

        results = in_threads(2, rival)
        left = [owner for owner in results if isinstance(owner, Owner)]
        assert [owner.attempt for owner in left] == [turn]
        assert left[0].nonce in left[0].key
        assert len(attempts(store)) == 2 * turn


def test_no_permission_to_delete_does_not_keep_a_run_from_starting() -> None:
    def refuse(operation: str, key: str) -> None:
        if operation == "delete":
            raise StorageError("AccessDenied")

    assert take(HookedStore(MemoryStore(), before=refuse)).attempt == 1


def test_a_listing_that_lags_behind_does_not_keep_a_claim_from_a_free_number() -> None:
    store = HookedStore(MemoryStore())
    for number in (1, 2, 3):
        write_end(store, record(store, number), 0, "", 0)
    store.listing = lambda prefix, entries: [entry for entry in entries if "0003" not in entry.key and old(entry)]

    def old(entry: Entry) -> bool:
        return "0002" not in entry.key

    assert take(store).attempt == 4


def test_a_listing_that_lags_behind_does_not_hide_who_is_running() -> None:
    inner = MemoryStore()
    write_end(inner, record(inner, 1), 0, "", 0)
    running = record(inner, 2)
    store = HookedStore(inner)
    store.listing = lambda prefix, entries: [entry for entry in entries if "0002" not in entry.key]
    with Heartbeat(inner, running, beat_seconds=0.02), pytest.raises(Busy, match="attempt 2"):
        take(store)


def test_the_claim_says_who_runs_it(any_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    owner = claim(any_store, {"run": "x"}, "1.2", take_over=False, stopped=lambda: False)
    found = AttemptRecord.parse(any_store.get("attempts/0001.json"), "")
    assert (found.attempt, found.nonce, found.config, found.version) == (1, owner.nonce, {"run": "x"}, "1.2")
    assert found.scheduler == {"SLURM_JOB_ID": "17"}
    assert found.process["pid"] == os.getpid()


# ---- busy or not


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


# ---- fence and heartbeat


def test_a_newer_attempt_fences_the_older(any_store: ObjectStore) -> None:
    first = take(any_store)
    check_fence(any_store, first)
    second = take(any_store, take_over=True)
    check_fence(any_store, second)
    with pytest.raises(Fenced, match="attempt 2 took over") as caught:
        check_fence(any_store, first)
    assert caught.value.exit_code == ExitCode.FENCED


def test_the_tenthousandth_attempt_is_newer_than_the_one_before() -> None:
    store = MemoryStore()
    record(store, 9999)
    assert take(store, take_over=True).attempt == 10000
    with pytest.raises(Fenced):
        check_fence(store, Owner(9999, "0" * 12))


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


# ---- records


def test_a_record_that_is_damaged_is_said_in_one_line() -> None:
    for data in (b"", b"{", b"[]", b'{"attempt": "x"}', b"\xff\xfe"):
        with pytest.raises(DataError, match=r"some/key is damaged: \w") as caught:
            AttemptRecord.parse(data, "some/key")
        assert "\n" not in str(caught.value)


# ---- what the tests above stand on


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def process_of(pid: int) -> dict[str, Any]:
    return {**identity.this_process(), **identity._process(pid)}


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
