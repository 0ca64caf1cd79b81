"""Old commits go only behind a newer one that reads back; nothing that anyone may still need goes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import Fenced, StorageError
from job.storage.checkpoints import commit_keys, fetch_best, read_commit, restore, step_of, upload_folder
from job.storage.memory import MemoryStore
from job.storage.pruning import prune
from job.storage.store import ObjectStore
from tests.committing import Crash, claimed, committed, flip, owner, refusing, restored, snapshot
from tests.hooked_store import HookedStore


def run_of(store: ObjectStore, tmp_path: Path, steps: list[int], number: int = 1) -> list[str]:
    by = claimed(store, number)
    return [committed(store, tmp_path, by, step) for step in steps]


def steps(store: ObjectStore) -> list[int]:
    return sorted(step_of(key) for key in commit_keys(store))


def files_without_record(store: ObjectStore) -> set[str]:
    named = {read_commit(store, key).folder for key in commit_keys(store)}
    folders = {entry.key.rpartition("/")[0] for entry in store.list("checkpoints/")}
    assert named <= folders, "a record without files"
    return folders - named


def test_the_newest_and_the_best_are_kept_and_the_others_go_with_their_files(
    any_store: ObjectStore, tmp_path: Path
) -> None:
    keys = run_of(any_store, tmp_path, [10, 20, 30, 40, 50])
    prune(any_store, owner(), keys[-1], 2, 20, print)
    assert steps(any_store) == [20, 40, 50]
    assert files_without_record(any_store) == set()
    assert restored(any_store, tmp_path) == 50
    fetch_best(any_store, 20, tmp_path / "best", wanted=True)


def test_a_best_step_without_a_commit_keeps_nothing_else(tmp_path: Path) -> None:
    store = MemoryStore()
    prune(store, owner(), run_of(store, tmp_path, [10, 20, 30])[-1], 1, 15, print)
    assert steps(store) == [30]


def test_what_is_kept_is_undamaged(tmp_path: Path) -> None:
    """Two newer commits were found damaged; they do not count among those that are kept, and go."""
    store = MemoryStore()
    keys = run_of(store, tmp_path, [10, 20, 30, 40])
    for key in keys[2:]:
        flip(store, read_commit(store, key))
    assert restored(store, tmp_path) == 20
    newest = committed(store, tmp_path, claimed(store, 2), 25)
    prune(store, owner(2), newest, 2, None, print)
    assert steps(store) == [20, 25]


def test_a_zombies_late_commit_does_not_push_the_successors_out(tmp_path: Path) -> None:
    store = MemoryStore()
    run_of(store, tmp_path, [10])
    newest = run_of(store, tmp_path, [11, 12], number=2)[-1]
    before_it_knew = HookedStore(store)
    before_it_knew.listing = lambda prefix, entries: [] if prefix == "attempts/" else entries
    committed(before_it_knew, tmp_path, owner(1), 500)
    prune(store, owner(2), newest, 2, None, print)
    assert steps(store) == [11, 12]


def test_records_go_before_their_files(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    keys = run_of(store, tmp_path, [10, 20])
    deleted: list[str] = []
    store.after = lambda operation, key: deleted.append(key) if operation == "delete" else None
    folder = read_commit(store, keys[0]).folder
    prune(store, owner(), keys[-1], 1, None, print)
    assert deleted[0] == keys[0] and len(deleted) == 4
    assert all(key.startswith(folder) for key in deleted[1:])


def test_a_crash_at_any_operation_of_a_prune_leaves_a_run_that_can_go_on_and_be_swept(tmp_path: Path) -> None:
    crashed = 0
    for at in range(200):
        inner = MemoryStore()
        keys = run_of(inner, tmp_path, [10, 20, 30, 40])
        count = iter(range(1000))

        def crash(operation: str, key: str, at: int = at, count: Iterator[int] = count) -> None:
            if next(count) == at:
                raise Crash

        try:
            prune(HookedStore(inner, before=crash), owner(), keys[-1], 1, 20, print)
        except Crash:
            crashed += 1
        else:
            break
        assert restored(inner, tmp_path) == 40
        assert {20, 40} <= set(steps(inner))
        newest = run_of(inner, tmp_path, [50], number=2)[-1]
        prune(inner, owner(2), newest, 1, 20, print)
        assert steps(inner) == [20, 50]
        assert files_without_record(inner) == set(), "swept"
    assert crashed > 20


def test_nothing_goes_behind_a_commit_that_does_not_read_back(tmp_path: Path) -> None:
    for damage in ("record", "file", "size"):
        store, said = MemoryStore(), list[str]()
        keys = run_of(store, tmp_path, [10, 20, 30])
        record = read_commit(store, keys[-1])
        name = f"{record.folder}/{record.files[0].name}"
        if damage == "size":
            store.put(name, b"short")
        else:
            store.delete([keys[-1] if damage == "record" else name])
        before = store.list("")
        prune(store, owner(), keys[-1], 1, None, said.append)
        assert store.list("") == before
        assert len(said) == 1 and "does not read back" in said[0]


def test_a_fenced_attempt_prunes_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    keys = run_of(store, tmp_path, [10, 20, 30])
    claimed(store, 2)
    before = store.list("")
    with pytest.raises(Fenced):
        prune(store, owner(1), keys[-1], 1, None, print)
    assert store.list("") == before


@pytest.mark.parametrize("operation", ["delete", "stat", "get"])
def test_a_store_that_refuses_gets_a_warning_and_nothing_is_lost(tmp_path: Path, operation: str) -> None:
    inner, said = MemoryStore(), list[str]()
    keys = run_of(inner, tmp_path, [10, 20, 30])
    prune(HookedStore(inner, before=refusing({operation})), owner(), keys[-1], 1, None, said.append)
    assert len(said) == 1 and "AccessDenied" in said[0]
    assert steps(inner) == [10, 20, 30] and files_without_record(inner) == set()


def test_files_that_killed_uploads_of_earlier_attempts_left_are_swept_and_nothing_else(tmp_path: Path) -> None:
    store = MemoryStore()
    run_of(store, tmp_path, [10])
    upload_folder(store, snapshot(tmp_path, 20), f"checkpoints/0001-{owner(1).nonce}/step-20-aaaaaaaa")
    upload_folder(store, snapshot(tmp_path, 30), f"checkpoints/0002-{owner(2).nonce}/step-30-bbbbbbbb")
    upload_folder(store, snapshot(tmp_path, 40), f"checkpoints/0003-{owner(3).nonce}/step-40-cccccccc")
    store.put("checkpoints/notes.txt", b"a user's")
    store.put("checkpoints/my-notes/x/y", b"a user's")
    newest = run_of(store, tmp_path, [25], number=2)[-1]
    prune(store, owner(2), newest, 5, None, print)
    left = {key.split("/")[2] for entry in store.list("checkpoints/0") if (key := entry.key)}
    assert {name.partition("-")[2].partition("-")[0] for name in left} == {"10", "25", "30", "40"}
    assert store.get("checkpoints/notes.txt") == store.get("checkpoints/my-notes/x/y") == b"a user's"


def test_while_a_record_cannot_be_read_nothing_is_swept(tmp_path: Path) -> None:
    store = MemoryStore()
    keys = run_of(store, tmp_path, [10, 20])
    store.put(keys[0], b"{")
    newest = run_of(store, tmp_path, [30], number=2)[-1]
    before = {entry.key for entry in store.list("checkpoints/")}
    prune(store, owner(2), newest, 5, None, print)
    assert {entry.key for entry in store.list("checkpoints/")} == before


def test_a_restore_while_the_owner_before_still_prunes_ends_at_a_whole_commit(tmp_path: Path) -> None:
    """The prune began before the new attempt existed, so no fence holds it."""
    inner = MemoryStore()
    first, second = run_of(inner, tmp_path, [10, 20])
    store, moments = HookedStore(inner), iter(range(100))

    def go_on(operation: str, key: str) -> None:
        if next(moments) == 2:
            prune(inner, owner(), committed(inner, tmp_path, owner(), 30), 1, None, print)

    store.before = go_on
    found = restore(store, 2, tmp_path / "resume", print)
    assert found is not None and found[1].step == 30
    assert first not in commit_keys(inner) and second not in commit_keys(inner)


def test_a_fence_that_cannot_be_read_deletes_nothing(tmp_path: Path) -> None:
    inner = MemoryStore()
    keys = run_of(inner, tmp_path, [10, 20])
    before = inner.list("")
    with pytest.raises(StorageError):
        prune(HookedStore(inner, before=refusing({"list"}, "attempts/")), owner(), keys[-1], 1, None, print)
    assert inner.list("") == before
