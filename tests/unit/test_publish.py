"""The result: files first, `final/result.json` last, put-if-absent, and only by who still owns the run."""

from pathlib import Path

import pytest

from job.config import RunConfig
from job.errors import Fenced
from job.inputs import Inputs
from job.publish import publish
from job.rundir import RunDir
from job.settled import read_result
from job.storage.attempts import Owner
from job.storage.checkpoints import download_files
from job.storage.committer import Committer
from job.storage.memory import MemoryStore
from job.storage.records import RESULT
from job.storage.store import ObjectStore
from tests.committing import SOURCE, claimed, owner
from tests.hooked_store import HookedStore

RAW = {"run": "/runs/one", "model": {"base": "/base", "precision": "fp32"}, "data": {"train": ["/d.jsonl"]}, "lora": {}}
INPUTS = Inputs("f1", {"model.safetensors": "d"}, "/base", "/base", chat=True)


class Told:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def published(store: ObjectStore, by: Owner, tmp_path: Path) -> list[str]:
    """What is said. The weights say whose they are."""
    local, told = RunDir(tmp_path / f"local-{by.attempt}").make(), Told()
    local.final.mkdir(exist_ok=True)
    (local.final / "adapter_model.safetensors").write_text(f"weights of {by.name}")
    parent = by.commit_key(7)
    committer = Committer(store, by, SOURCE, parent, [], 1, lambda evaluations: None, told.message)
    publish(RunConfig.from_dict(RAW), store, by, INPUTS, local, committer, told)  # type: ignore[arg-type]
    return told.messages


def weights(store: ObjectStore, tmp_path: Path) -> str:
    result = read_result(store)
    assert result is not None
    download_files(store, result.folder, result.files, tmp_path / "down")
    return (tmp_path / "down" / "adapter_model.safetensors").read_text()


def test_the_result_names_whole_files_and_where_they_come_from(any_store: ObjectStore, tmp_path: Path) -> None:
    by = claimed(any_store)
    assert published(any_store, by, tmp_path)[-1].startswith("finished: adapter of step 7")
    assert weights(any_store, tmp_path) == "weights of 0001"
    result = read_result(any_store)
    assert result is not None and (result.attempt, result.step, result.commit) == (1, 7, by.commit_key(7))
    assert {file.name for file in result.files} == {"adapter_model.safetensors", "README.md", "provenance.json"}


def test_a_newer_attempt_that_comes_while_the_files_go_up_ends_it_without_a_result(tmp_path: Path) -> None:
    store = HookedStore(MemoryStore())
    first = claimed(store)

    def overtake(operation: str, key: str) -> None:
        if operation == "upload":
            claimed(store.inner, 2)

    store.after = overtake
    with pytest.raises(Fenced):
        published(store, first, tmp_path)
    assert read_result(store) is None


def test_a_fenced_attempt_uploads_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    claimed(store, 2)
    with pytest.raises(Fenced):
        published(store, owner(1), tmp_path)
    assert store.list("final/") == []


def test_a_result_that_is_there_stays(any_store: ObjectStore, tmp_path: Path) -> None:
    """Another attempt wrote it between this one's last look and its own."""
    published(any_store, claimed(any_store), tmp_path)
    before = any_store.get(RESULT)
    assert "another attempt" in published(any_store, claimed(any_store, 2), tmp_path)[-1]
    assert any_store.get(RESULT) == before
    assert weights(any_store, tmp_path) == "weights of 0001"
