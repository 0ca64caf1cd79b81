"""What a run folder holds beside whole commits is told apart: harmless, reported, or no run at all."""

import json
from pathlib import Path

import pytest

from job.errors import ConfigError
from job.storage.attempts import write_end
from job.storage.checkpoints import commit, read_commit
from job.storage.memory import MemoryStore
from job.storage.pruning import prune
from job.storage.records import RESULT, RUN
from job.storage.stock import take_stock
from job.storage.store import ObjectStore
from tests.committing import claimed, owner, snapshot
from tests.hooked_store import HookedStore
from tests.verifying import KEYS, SOURCE, changed, checked, make_run, problems


@pytest.fixture
def run(tmp_path: Path) -> ObjectStore:
    return make_run(MemoryStore(), tmp_path)


def test_a_pruned_parent_is_a_note(run: ObjectStore, tmp_path: Path) -> None:
    prune(run, owner(), KEYS[2], 1, None, lambda text: None)
    found = checked(run, tmp_path)
    assert problems(found) == {} and [key for key in found if key in KEYS] == [KEYS[2]]
    assert found[KEYS[2]].notes == (f"its parent {KEYS[1]} was pruned",)


@pytest.mark.parametrize("operation", ["get", "stat"])
def test_a_commit_that_is_pruned_while_it_is_looked_at_is_no_damage(tmp_path: Path, operation: str) -> None:
    inner = make_run(MemoryStore(), tmp_path)
    gone = read_commit(inner, KEYS[0])

    def race(asked: str, key: str) -> None:
        if asked == operation and (key == KEYS[0] or key.startswith(gone.folder)):
            inner.delete([KEYS[0], *[f"{gone.folder}/{file.name}" for file in gone.files]])

    found = checked(HookedStore(inner, before=race), tmp_path)
    assert problems(found) == {}
    assert KEYS[0] not in found or "pruned" in found[KEYS[0]].notes[0]


def test_marks_are_reported_and_do_not_condemn(run: ObjectStore, tmp_path: Path) -> None:
    for key in (KEYS[2], "commits/0001-00000009.json"):
        marker = {"commit": key, "attempt": 2, "reason": "bad memory", "time": ""}
        run.put(f"damaged/{Path(key).stem}-0002.json", json.dumps(marker).encode())
    run.put("damaged/0001-00000001-0003.json", b"{")
    found = checked(run, tmp_path)
    assert problems(found) == {}
    assert found[KEYS[2]].notes == ("attempt 2 marked it as damaged: bad memory",)
    assert found[KEYS[0]].notes == ("attempt 3 marked it as damaged: no reason can be read",)
    assert {mark.commit for mark in take_stock(run).marks} == {KEYS[0], KEYS[2], "commits/0001-00000009.json"}


@pytest.mark.parametrize("code", [0, 75])
def test_commits_that_an_attempt_ended_on_are_missed_when_they_are_gone(
    run: ObjectStore, tmp_path: Path, code: int
) -> None:
    write_end(run, owner(), code, "", 3)
    run.delete([RUN, RESULT, *KEYS])
    found = checked(run, tmp_path)
    assert "attempts/0001-end.json" in problems(found)["commits/*-00000003.json"][0]
    assert (RESULT in problems(found)) == (code == 0)


def test_what_a_later_attempt_replaced_is_not_missed(run: ObjectStore, tmp_path: Path) -> None:
    run.delete([RESULT])
    write_end(run, owner(), 75, "", 3)
    write_end(run, claimed(run, 2), 75, "", 3)
    assert problems(checked(run, tmp_path)) == {}
    newest = commit(run, owner(2), snapshot(tmp_path, 4), 4, KEYS[2], [], SOURCE)
    run.delete(KEYS)
    assert problems(checked(run, tmp_path)) == {}
    run.delete([newest])
    assert list(problems(checked(run, tmp_path))) == ["commits/*-00000003.json"]


def test_what_is_committed_while_the_stock_is_taken_is_not_missed(tmp_path: Path) -> None:
    inner = make_run(MemoryStore(), tmp_path)
    inner.delete([RESULT])

    def end(operation: str, key: str) -> None:
        if operation == "list" and key == "commits/" and not inner.list("attempts/0002"):
            commit(inner, claimed(inner, 2), snapshot(tmp_path, 4), 4, KEYS[2], [], SOURCE)
            inner.delete(KEYS)
            write_end(inner, owner(2), 75, "", 4)

    assert problems(checked(HookedStore(inner, after=end), tmp_path)) == {}


def test_files_without_a_record_are_told_by_folder_and_are_no_damage(run: ObjectStore, tmp_path: Path) -> None:
    run.put("checkpoints/0002-aaaaaaaaaaaa/step-4-1/state.json", b"12345")
    run.put("final/0002/adapter_model.safetensors", b"123")
    run.put("prepared/f2.json", b"{}")
    run.put(f"{read_commit(run, KEYS[0]).folder}/training_args.bin", b"1")
    strays = {(one.folder, one.files, one.bytes) for one in take_stock(run).unrecorded}
    assert strays == {
        ("checkpoints/0002-aaaaaaaaaaaa/step-4-1", 1, 5),
        ("final/0002", 1, 3),
        (read_commit(run, KEYS[0]).folder, 1, 1),
    }
    assert problems(checked(run, tmp_path)) == {}


def test_a_folder_that_is_no_run_is_refused(any_store: ObjectStore) -> None:
    any_store.put("notes.txt", b"hello")
    with pytest.raises(ConfigError, match="is no run folder"):
        take_stock(any_store)


@pytest.mark.parametrize("key", ["attempts/0001.json", "fork.json"])
def test_a_run_that_committed_nothing_yet_has_nothing_wrong(key: str) -> None:
    store = MemoryStore()
    store.put(key, b"{}")
    assert take_stock(store).empty


def test_a_fork_that_was_cut_short_says_how_to_finish_it(tmp_path: Path) -> None:
    run = make_run(MemoryStore(), tmp_path)
    run.delete([RUN])
    run.put("fork.json", b"{}")
    assert "same fork command" in checked(run, tmp_path)[RUN].problems[0]


def test_the_first_commit_of_a_fork_needs_no_parent(run: ObjectStore, tmp_path: Path) -> None:
    changed(run, KEYS[0], origin={"run": "/r", "commit": KEYS[0], "digest": "d"})
    assert problems(checked(run, tmp_path)) == {}
