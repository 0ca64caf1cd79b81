"""Stores of every kind, each empty."""

from pathlib import Path

import pytest

from job.storage import identity
from job.storage.folder import FolderStore
from job.storage.memory import MemoryStore
from job.storage.s3 import S3Store
from job.storage.store import ObjectStore
from tests.servers import Bucket


@pytest.fixture(params=["memory", "folder", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return MemoryStore("test")
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    bucket: Bucket = request.getfixturevalue("s3")
    return S3Store(f"{bucket.uri}/runs/one")


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*identity.SCHEDULER_VARIABLES, identity.LIFE):
        monkeypatch.delenv(name, raising=False)
