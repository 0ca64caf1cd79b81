"""Files first, record last: whatever happens at whatever moment, the newest whole commit is what a run goes on from."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError, ExitCode, Fenced, StorageError
from job.storage.checkpoints import (
    Provenance,
    commit,
    commit_keys,
    download_files,
    fetch_best,
    read_commit,
    restore,
    sha256,
    upload_folder,
)
from job.storage.folder import FolderStore
from job.storage.memory import MemoryStore
from job.storage.records import Commit, FileRecord
from job.storage.store import Entry, NotFound, ObjectStore
from tests.committing import (
    FILES,
    SOURCE,
    Crash,
    claimed,
    committed,
    content,
    flip,
    owner,
    refusing,
    restored,
    snapshot,
)
from tests.hooked_store import HookedStore

# ---- commit


def test_what_is_committed_comes_back_with_its_evaluations_and_origin(any_store: ObjectStore, tmp_path: Path) -> None:
    evaluations: list[dict[str, object]] = [{"step": 5, "eval_loss": 1.25}, {"step": 10, "eval_loss": float("inf")}]
    key = commit(any_store, claimed(any_store), snapshot(tmp_path, 10), 10, "commits/0000-1.json", evaluations, SOURCE)
    found = restore(any_store, 2, tmp_path / "resume", print)
    assert found is not None and found[0] == key == "commits/0001-00000010.json"
    record = found[1]
    assert record.evaluations == evaluations
    assert (record.attempt, record.step, record.parent) == (1, 10, "commits/0000-1.json")
    assert Provenance(record.run_digest, record.prepared, record.world_size, record.strategy, record.versions) == SOURCE
    assert restored(any_store, tmp_path) == 10


def test_every_file_of_a_commit_is_recorded_with_size_and_hash(any_store: ObjectStore, tmp_path: Path) -> None:
    folder = snapshot(tmp_path, 3)
    (folder / "empty").touch()
    (folder / "below").mkdir()
    (folder / "below" / "微调.bin").write_bytes(os.urandom(3_000_000))
    record = read_commit(any_store, commit(any_store, claimed(any_store), folder, 3, None, [], SOURCE))
    assert {file.name for file in record.files} == {*FILES, "empty", "below/微调.bin"}
    for file in record.files:
        assert (file.size, file.sha256) == ((folder / file.name).stat().st_size, sha256(folder / file.name))
    download_files(any_store, record.folder, record.files, tmp_path / "down")
    assert (tmp_path / "down" / "below" / "微调.bin").read_bytes() == (folder / "below" / "微调.bin").read_bytes()


def test_a_crash_at_any_operation_of_a_commit_leaves_it_whole_or_not_there(tmp_path: Path) -> None:
    """Before and after each operation; then the run is restored, and the next attempt's commit goes through."""
    outcomes = []
    for when in ("before", "after"):
        for at in range(100):
            inner = MemoryStore()
            first = claimed(inner)
            committed(inner, tmp_path, first, 10)
            store, count = HookedStore(inner), iter(range(1000))

            def crash(operation: str, key: str, at: int = at, count: Iterator[int] = count) -> None:
                if next(count) == at:
                    raise Crash

            setattr(store, when, crash)
            try:
                committed(store, tmp_path, first, 20)
            except Crash:
                outcomes.append(restored(inner, tmp_path))
                assert json.loads(inner.get(commit_keys(inner)[0]))["step"] == outcomes[-1]
                second = claimed(inner, 2)
                committed(inner, tmp_path, second, 30)
                assert restored(inner, tmp_path) == 30
            else:
                assert restored(inner, tmp_path) == 20
                break
    assert outcomes.count(20) == 1, "only after the record's own put it is there"
    assert outcomes.count(10) == len(outcomes) - 1 >= 2 * len(FILES)


def test_a_newer_attempt_ends_a_commit_before_its_record(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    first = claimed(store)

    def overtake(operation: str, key: str) -> None:
        if operation == "upload" and key.endswith(FILES[-1]):
            claimed(store.inner, 2)

    store.after = overtake
    with pytest.raises(Fenced):
        committed(store, tmp_path, first, 10)
    assert commit_keys(store) == []
    with pytest.raises(Fenced):
        committed(store, tmp_path, first, 20)


def test_an_answer_that_was_lost_is_found_to_be_ones_own_success(tmp_path: Path) -> None:
    """The record was written, its answer never came; the same step is committed again."""
    store = HookedStore(MemoryStore())
    first = claimed(store)
    store.after = refusing({"put_if_absent"})
    with pytest.raises(StorageError):
        committed(store, tmp_path, first, 10)
    store.after = lambda operation, key: None
    assert committed(store, tmp_path, first, 10) == "commits/0001-00000010.json"
    assert restored(store, tmp_path) == 10


def test_a_record_of_somebody_else_under_ones_own_key_is_an_error(tmp_path: Path) -> None:
    store = MemoryStore()
    committed(store, tmp_path, owner(1, "b" * 12), 10)
    with pytest.raises(StorageError, match="exists already"):
        committed(store, tmp_path, owner(1, "a" * 12), 10)


# ---- restore


def test_no_commit_is_a_fresh_start(any_store: ObjectStore, tmp_path: Path) -> None:
    assert restored(any_store, tmp_path) is None


def test_commits_order_by_attempt_then_step(tmp_path: Path) -> None:
    store = MemoryStore()
    for number, step in [(2, 7), (1, 900), (10, 3), (2, 30), (10000, 1), (9999, 5)]:
        committed(store, tmp_path, owner(number), step)
    assert [key.removeprefix("commits/").removesuffix(".json") for key in commit_keys(store)] == [
        "10000-00000001",
        "9999-00000005",
        "0010-00000003",
        "0002-00000030",
        "0002-00000007",
        "0001-00000900",
    ]


def test_a_zombies_late_commit_is_never_chosen_over_its_successors(tmp_path: Path) -> None:
    store = MemoryStore()
    committed(store, tmp_path, owner(1), 10)
    committed(store, tmp_path, owner(2), 20)
    committed(store, tmp_path, owner(1), 500)  # it passed its fence check before attempt 2 existed
    assert restored(store, tmp_path) == 20


def lose(store: ObjectStore, record: Commit) -> None:
    store.delete([f"{record.folder}/{FILES[0]}"])


def cut(store: ObjectStore, record: Commit) -> None:
    key = f"{record.folder}/{FILES[0]}"
    store.put(key, store.get(key)[:-1])


def lengthen(store: ObjectStore, record: Commit) -> None:
    key = f"{record.folder}/{FILES[0]}"
    store.put(key, store.get(key) + b"\0")


def garble_record(store: ObjectStore, record: Commit) -> None:
    store.put(owner(record.attempt).commit_key(record.step), b'{"attempt": 1, "files": [')


def lead_astray(store: ObjectStore, record: Commit) -> None:
    files = [FileRecord.model_construct(name="../escaped", size=file.size, sha256=file.sha256) for file in record.files]
    store.put(owner(record.attempt).commit_key(record.step), record.model_copy(update={"files": files}).dump())


DAMAGES = [flip, lose, cut, lengthen, garble_record, lead_astray]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_commit_is_reported_and_the_one_before_used(
    any_store: ObjectStore, tmp_path: Path, damage: Callable[[ObjectStore, Commit], None]
) -> None:
    committed(any_store, tmp_path, owner(), 10)
    key = committed(any_store, tmp_path, owner(), 20)
    damage(any_store, read_commit(any_store, key))
    said: list[str] = []
    assert restored(any_store, tmp_path, said) == 10
    assert len(said) == 1 and key in said[0] and "\n" not in said[0]
    marker = json.loads(any_store.get("damaged/0001-00000020-0099.json"))
    assert marker["commit"] == key and marker["reason"] in said[0]
    assert not (tmp_path / "escaped").exists()


def test_a_marker_does_not_keep_others_from_reading_for_themselves(tmp_path: Path) -> None:
    store = MemoryStore()
    committed(store, tmp_path, owner(), 10)
    key = committed(store, tmp_path, owner(), 20)
    record = read_commit(store, key)
    data = store.get(f"{record.folder}/{FILES[1]}")
    flip(store, record)
    assert restored(store, tmp_path) == 10
    store.put(f"{record.folder}/{FILES[1]}", data)  # it was that machine's cable, or someone restored the file
    assert restored(store, tmp_path) == 20


def test_a_file_that_arrives_damaged_once_is_read_again(tmp_path: Path) -> None:
    store, damage = HookedStore(FolderStore(tmp_path / "store")), [1]
    committed(store, tmp_path, owner(), 10)

    class Once(HookedStore):
        def download(self, key: str, path: Path, progress: Any = None, expect: Any = None) -> Entry:
            entry = super().download(key, path, progress, expect)
            if damage and damage.pop():
                path.write_bytes(b"x" * entry.size)
            return entry

    said: list[str] = []
    assert restored(Once(store), tmp_path, said) == 10
    assert said == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_when_all_commits_are_damaged_nothing_is_deleted_and_nothing_begins_anew(
    tmp_path: Path, damage: Callable[[ObjectStore, Commit], None]
) -> None:
    store = MemoryStore()
    for step in (10, 20):
        damage(store, read_commit(store, committed(store, tmp_path, owner(), step)))
    before = {entry.key for entry in store.list("")}
    with pytest.raises(DataError, match=r"nothing was deleted") as caught:
        restored(store, tmp_path)
    assert caught.value.exit_code == ExitCode.DATA and "\n" not in str(caught.value)
    assert {entry.key for entry in store.list("")} >= before


@pytest.mark.parametrize("operation", ["list", "get", "download"])
def test_a_store_that_refuses_or_fails_is_never_a_fresh_start_nor_damage(tmp_path: Path, operation: str) -> None:
    inner = MemoryStore()
    for step in (10, 20):
        committed(inner, tmp_path, owner(), step)
    said: list[str] = []
    with pytest.raises(StorageError):
        restored(HookedStore(inner, before=refusing({operation})), tmp_path, said)
    assert said == [] and inner.list("damaged/") == []


@pytest.mark.parametrize("moment", ["get", "download"])
def test_a_commit_that_vanishes_while_it_is_read_is_looked_for_in_a_new_list(tmp_path: Path, moment: str) -> None:
    """An older attempt, which does not know yet that it is fenced, commits once more and prunes."""
    inner = MemoryStore()
    first = committed(inner, tmp_path, owner(), 10)
    folder = read_commit(inner, first).folder

    def prune_meanwhile(operation: str, key: str) -> None:
        if operation == moment and first in commit_keys(inner):
            committed(inner, tmp_path, owner(), 20)
            inner.delete([first, *(entry.key for entry in inner.list(folder))])

    said: list[str] = []
    assert restored(HookedStore(inner, before=prune_meanwhile), tmp_path, said) == 20
    assert said == [] and inner.list("damaged/") == []


def test_a_record_that_stays_listed_but_is_not_there_is_passed_over(tmp_path: Path) -> None:
    inner = MemoryStore()
    committed(inner, tmp_path, owner(), 10)
    ghost = Entry("commits/0001-00000020.json", 10, "x")
    store = HookedStore(inner)
    store.listing = lambda prefix, entries: [*entries, ghost] if prefix == "commits/" else entries
    said: list[str] = []
    assert restored(store, tmp_path, said) == 10
    assert len(said) == 1


def test_only_a_ghost_is_never_a_fresh_start(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    store.listing = lambda prefix, entries: [Entry("commits/0001-00000020.json", 1, "")] if "commits" in prefix else []
    with pytest.raises(DataError):
        restored(store, tmp_path)


def test_what_lay_in_the_folder_before_does_not_stay(tmp_path: Path) -> None:
    store = MemoryStore()
    committed(store, tmp_path, owner(), 10)
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "left.safetensors").write_bytes(b"x")
    assert restored(store, tmp_path) == 10


# ---- the best


def test_the_best_evaluations_commit_is_fetched_from_whichever_attempt_has_it_whole(tmp_path: Path) -> None:
    store, target = MemoryStore(), tmp_path / "best"
    committed(store, tmp_path, owner(1), 10)
    flip(store, read_commit(store, committed(store, tmp_path, owner(2), 10)))
    committed(store, tmp_path, owner(2), 20)
    fetch_best(store, 10, target, wanted=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == content(10)


def test_a_best_that_is_not_wanted_is_not_fetched_and_one_that_is_missing_is_said(tmp_path: Path) -> None:
    store, target = MemoryStore(), tmp_path / "best"
    fetch_best(store, 10, target, wanted=False)
    fetch_best(store, None, target, wanted=True)
    assert not target.exists()
    with pytest.raises(DataError, match="step 10"):
        fetch_best(store, 10, target, wanted=True)


# ---- folders


def test_a_file_that_is_not_the_recorded_one_is_never_accepted(any_store: ObjectStore, tmp_path: Path) -> None:
    files = upload_folder(any_store, snapshot(tmp_path, 1), "a")
    with pytest.raises(DataError, match="SHA-256"):
        download_files(any_store, "a", [replace_hash(files[0])], tmp_path / "down")
    with pytest.raises(NotFound):
        download_files(any_store, "b", files, tmp_path / "down")


def replace_hash(file: FileRecord) -> FileRecord:
    return file.model_copy(update={"sha256": "0" * 64})
