"""All that a run committed is checked against its records; damage is named, all of it, and nothing is ever changed."""

from pathlib import Path

import pytest

from job.errors import Stopped, StorageError
from job.storage.checkpoints import read_commit
from job.storage.folder import FolderStore
from job.storage.memory import MemoryStore
from job.storage.records import RESULT, RUN, Commit, Result
from job.storage.stock import take_stock
from job.storage.store import Entry, ObjectStore
from job.storage.verification import Files, Verification
from job.verify import verdict
from tests.committing import flip, refusing
from tests.hooked_store import HookedStore
from tests.verifying import KEYS, TRAJECTORY, changed, checked, make_run, plant, problems


@pytest.fixture
def run(tmp_path: Path) -> ObjectStore:
    return make_run(MemoryStore(), tmp_path)


def test_a_whole_run_of_any_store_verifies_and_is_left_as_it_was(any_store: ObjectStore, tmp_path: Path) -> None:
    make_run(any_store, tmp_path)
    before = any_store.list("")
    found = checked(any_store, tmp_path)
    assert problems(found) == {} and verdict(any_store.uri, list(found.values())) is None
    assert list(found) == [RUN, "prepared/f1.json", *KEYS, RESULT]
    assert [(found[key].step, found[key].attempt, found[key].files) for key in KEYS] == [
        (1, 1, 3),
        (2, 1, 3),
        (3, 1, 3),
    ]
    assert sum(one.bytes for one in found.values()) == take_stock(any_store).total_bytes() > 0
    assert any_store.list("") == before


def test_a_flipped_bit_in_a_file_is_found_and_only_its_commit_is_damaged(
    any_store: ObjectStore, tmp_path: Path
) -> None:
    make_run(any_store, tmp_path)
    flip(any_store, read_commit(any_store, KEYS[2]))
    found = checked(any_store, tmp_path)
    assert list(problems(found)) == [KEYS[2]]
    assert "optimizer.safetensors" in found[KEYS[2]].problems[0] and "SHA-256" in found[KEYS[2]].problems[0]
    error = verdict(any_store.uri, list(found.values()))
    assert error is not None and error.exit_code == 65 and "\n" not in str(error)
    assert KEYS[2] in str(error) and str(error).endswith(f"The newest commit that is whole is {KEYS[1]}")


def test_every_fault_is_named_at_once(run: ObjectStore, tmp_path: Path) -> None:
    flip(run, read_commit(run, KEYS[0]))
    folder = read_commit(run, KEYS[1]).folder
    run.delete([f"{folder}/state.json"])
    run.put(f"{folder}/trainable.safetensors", b"short")
    run.put(KEYS[2], b"{")
    run.put("final/0001/adapter_model.safetensors", b"weighty")
    run.put("prepared/f1/0001/train.arrow", b"rowz")
    found = checked(run, tmp_path)
    error = str(verdict(run.uri, list(found.values())))
    for key in (*KEYS, RESULT, "prepared/f1.json"):
        assert key in error
    assert found[KEYS[1]].problems == (
        "state.json: is missing",
        "trainable.safetensors: has 5 bytes, 1300 were committed",
    )
    assert found[KEYS[2]].problems[0].startswith("cannot be read: ")
    assert all(error.count(key) == 1 for key in KEYS[:2]) and run.uri not in found[KEYS[2]].problems[0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"run_digest": "other"}, "another run's"),
        ({"prepared": "f2"}, "other rows"),
        ({"step": 7}, "commit of step 7"),
        ({"attempt": 2}, "attempt 2's"),
        ({"parent": "commits/0001-00000004.json"}, "not older"),
        ({"parent": "somewhere"}, "is no commit"),
        ({"files": []}, "no file"),
        ({"folder": "../outside"}, "is missing"),
    ],
)
def test_a_record_that_contradicts_the_run_or_itself_is_damaged(
    run: ObjectStore, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    changed(run, KEYS[1], **fields)
    found = checked(run, tmp_path)
    assert list(problems(found)) == [KEYS[1]]
    assert words in " ".join(found[KEYS[1]].problems)


def test_a_name_that_leads_out_of_the_folder_is_damage_and_is_not_followed(tmp_path: Path) -> None:
    store = make_run(FolderStore(tmp_path / "run"), tmp_path)
    changed(store, KEYS[1], folder="../outside")
    assert "no key for the folder" in checked(store, tmp_path)[KEYS[1]].problems[0]


def test_run_json_whose_deciding_fields_were_changed_is_damaged(run: ObjectStore, tmp_path: Path) -> None:
    changed(run, RUN, trajectory={**TRAJECTORY, "train.seed": 43})
    assert list(problems(checked(run, tmp_path))) == [RUN]


@pytest.mark.parametrize("content", [None, b"{"])
def test_a_missing_or_unreadable_run_json_is_damage_and_the_files_are_checked_all_the_same(
    run: ObjectStore, tmp_path: Path, content: bytes | None
) -> None:
    run.delete([RUN])
    if content is not None:
        run.put(RUN, content)
    flip(run, read_commit(run, KEYS[2]))
    assert list(problems(checked(run, tmp_path))) == [RUN, KEYS[2]]


def test_a_missing_record_of_the_prepared_rows_is_damage(run: ObjectStore, tmp_path: Path) -> None:
    run.delete(["prepared/f1.json"])
    assert list(problems(checked(run, tmp_path))) == ["prepared/f1.json"]


# ---- reading


def test_a_store_that_refuses_is_never_damage(run: ObjectStore, tmp_path: Path) -> None:
    for operation in ("list", "get", "stat", "download"):
        with pytest.raises(StorageError):
            checked(HookedStore(run, before=refusing({operation})), tmp_path)


def test_a_read_that_differs_once_is_read_once_more(tmp_path: Path) -> None:
    inner = make_run(MemoryStore(), tmp_path)
    spoiled: list[str] = []

    class Spoiling(HookedStore):
        def download(self, key: str, path: Path, progress: object = None, expect: Entry | None = None) -> Entry:
            entry = super().download(key, path)
            if "checkpoints" in key and not spoiled:
                spoiled.append(key)
                path.write_bytes(b"x" * entry.size)
            return entry

    assert problems(checked(Spoiling(inner), tmp_path)) == {}
    assert spoiled


def test_only_one_file_at_a_time_lies_on_the_local_disk(tmp_path: Path) -> None:
    most: list[int] = []

    def count(operation: str, key: str) -> None:
        if operation == "download":
            most.append(len([path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]))

    store = HookedStore(make_run(MemoryStore(), tmp_path), after=count)
    checked(store, tmp_path)
    assert len(most) == 11 and max(most) == 1


def test_what_the_reader_raises_ends_it(run: ObjectStore, tmp_path: Path) -> None:
    def read(count: int) -> None:
        raise Stopped("enough")

    with pytest.raises(Stopped):
        list(Verification(run, take_stock(run), tmp_path, read).run())


# ---- loading


def test_only_what_verified_is_loaded_and_what_is_wrong_with_it_is_damage(run: ObjectStore, tmp_path: Path) -> None:
    flip(run, read_commit(run, KEYS[0]))
    loaded: list[tuple[object, set[str]]] = []

    def load(record: object, files: Files) -> list[str]:
        assert all(path.is_file() for path in files.values())
        loaded.append((record, set(files)))
        return ["not finite"] if isinstance(record, Commit) and record.step == 3 else []

    found = checked(run, tmp_path, load)
    assert list(problems(found)) == [KEYS[0], KEYS[2]] and found[KEYS[2]].problems == ("not finite",)
    steps = [record.step for record, _ in loaded if isinstance(record, Commit | Result)]
    assert steps == [2, 3, 3]
    assert loaded[0][1] == {"trainable.safetensors", "optimizer.safetensors", "state.json"}


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state_0.PTH", "x.pkl", "code.py"])
def test_a_file_that_could_run_code_is_refused_in_a_commit_and_never_loaded(
    run: ObjectStore, tmp_path: Path, name: str
) -> None:
    plant(run, KEYS[1], name)
    found = checked(run, tmp_path, lambda record, files: loads_nothing_of(files, name))
    assert list(problems(found)) == [KEYS[1]]
    assert name in found[KEYS[1]].problems[0] and "never opened" in found[KEYS[1]].problems[0]


def test_a_pickle_is_refused_in_the_result_too(run: ObjectStore, tmp_path: Path) -> None:
    plant(run, RESULT, "adapter_model.bin")
    found = checked(run, tmp_path, lambda record, files: loads_nothing_of(files, "adapter_model.bin"))
    assert list(problems(found)) == [RESULT]


def loads_nothing_of(files: Files, name: str) -> list[str]:
    assert name not in files
    return []


def test_a_result_whose_commit_is_gone_is_not_whole_as_the_newest_is_never_pruned(
    run: ObjectStore, tmp_path: Path
) -> None:
    run.delete([KEYS[2]])
    found = checked(run, tmp_path)
    assert problems(found) == {RESULT: (f"its commit {KEYS[2]} is missing, and the newest is never pruned",)}
