"""One attempt at a time: no number is given twice, and a newer attempt fences the older."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from job.errors import Busy, ExitCode, Fenced, StorageError
from job.storage.attempts import Owner, attempts, check_fence, claim, has_conditional_put, write_end
from job.storage.heartbeat import Heartbeat
from job.storage.memory import MemoryStore
from job.storage.records import AttemptRecord
from job.storage.store import ObjectStore, open_store
from tests.claiming import in_threads, record, take, wait_until
from tests.hooked_store import HookedStore
from tests.servers import Bucket, Fault, FaultyProxy

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


def test_whoever_claims_between_the_look_and_the_claim_is_found_running() -> None:
    store = HookedStore(MemoryStore())

    def rival(operation: str, key: str) -> None:
        if operation == "list":
            store.after = lambda operation, key: None
            record(store, 1)

    store.after = rival
    with Heartbeat(store.inner, Owner(1, "0" * 12), beat_seconds=0.02), pytest.raises(Busy, match="attempt 1"):
        take(store)


def test_claims_of_many_processes_never_get_the_same_number(tmp_path: Path) -> None:
    """On a folder, where the filesystem decides."""
    code = (
        "import sys; from pathlib import Path; from job.storage.folder import FolderStore\n"
        "from job.storage.attempts import claim\n"
        "store = FolderStore(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.readline()\n"
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
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
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
    store.listing = lambda prefix, entries: [entry for entry in entries if "0001" in entry.key]
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


# ---- fence


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


def test_a_store_that_refuses_conditional_writes_is_found_out(faulty: FaultyProxy, s3: Bucket) -> None:
    faulty.faults.append(Fault("status", match=r"(?s)^PUT .*if-none-match: \*", status=501, code="NotImplemented"))
    assert not has_conditional_put(open_store(s3.uri))
