"""Fixtures of whole runs: a place where everything is right, a run that has begun, and the same on S3."""

import shutil
from pathlib import Path

import pytest

from job.storage.store import open_store
from job.tiny import make, write_demo_chat
from tests import standins
from tests.harness import finish
from tests.refusals import Place, right_fields
from tests.servers import Bucket
from tests.tiny_runs import TinyRuns


@pytest.fixture(scope="session")
def right_inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a conversation, and a folder `begun` of an unfinished run."""
    root = tmp_path_factory.mktemp("right")
    standins.gemma(root / "base")
    standins.write_conversation(root / "chat.jsonl")
    begun = Place(root, right_fields(root, root / "begun"))
    finish(begun.arguments({}), begun.home)
    shutil.rmtree(root / "begun" / "final")
    return root


@pytest.fixture
def place(right_inputs: Path, tmp_path: Path) -> Place:
    return Place(tmp_path, right_fields(right_inputs, tmp_path / "never"))


@pytest.fixture
def begun(right_inputs: Path, tmp_path: Path) -> Place:
    """On a copy of the run that has begun."""
    shutil.copytree(right_inputs / "begun", tmp_path / "begun")
    return Place(tmp_path, right_fields(right_inputs, tmp_path / "begun"))


@pytest.fixture
def place_on_s3(right_inputs: Path, s3: Bucket, tmp_path: Path) -> Place:
    """Everything in one bucket."""
    store = open_store(s3.uri)
    for file in sorted((right_inputs / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(right_inputs / "chat.jsonl", "chat.jsonl")
    fields = {"run": f"{s3.uri}/never", "model.base": f"{s3.uri}/base", "data.train": [f"{s3.uri}/chat.jsonl"]}
    return Place(tmp_path, fields, dict(s3.env))


@pytest.fixture
def on_s3(s3: Bucket, tmp_path: Path) -> TinyRuns:
    store = open_store(f"s3://{s3.name}")
    for file in sorted(make(tmp_path / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(write_demo_chat(tmp_path / "chat.jsonl"), "chat.jsonl")
    place = TinyRuns(f"s3://{s3.name}", tmp_path / "home", {"AWS_ENDPOINT_URL": s3.endpoint})
    place.write_config("{r: 8, alpha: 16, dropout: 0.1}")
    return place


@pytest.fixture
def in_folder(tmp_path: Path) -> TinyRuns:
    make(tmp_path / "base")
    write_demo_chat(tmp_path / "chat.jsonl")
    place = TinyRuns(str(tmp_path), tmp_path / "home", {})
    place.write_config("null")
    return place
