"""Nodes without network: everything is pulled on a login node into a shared folder, and read there in place."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.storage.store import open_store
from job.tiny import make, write_demo_chat
from tests.harness import Job, finish, sets
from tests.hub_server import COMMIT, Hub, hub_server
from tests.servers import Bucket, free_port

pytestmark = pytest.mark.slow

ONLINE = {"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": ""}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    base = make(tmp_path / "base")
    with hub_server() as served:
        served.commits["models/org/tiny"] = {COMMIT: {file.name: file.read_bytes() for file in base.iterdir()}}
        yield served


@pytest.fixture
def arguments(tmp_path: Path, s3: Bucket) -> list[str]:
    """Of a run whose folder is a shared one, its base on the hub, its data on S3."""
    open_store(s3.uri).upload(write_demo_chat(tmp_path / "chat.jsonl"), "chats/one.jsonl")
    (tmp_path / "run.yaml").write_text(
        f"""
run: {tmp_path}/runs/one
model: {{base: "hf://org/tiny@main"}}
data: {{train: ["{s3.uri}/chats/*.jsonl"], max_length: 64}}
lora: {{r: 4}}
train: {{max_steps: 4, global_batch_size: 8}}
checkpoint: {{every: 2 steps}}
parallel: {{device: cpu}}
""",
        encoding="utf-8",
    )
    return [str(tmp_path / "run.yaml")]


def written_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(file): (file.stat().st_size, file.stat().st_ino) for file in folder.rglob("*") if file.is_file()}


def test_what_the_login_node_pulled_is_all_that_nodes_without_network_need(
    tmp_path: Path, s3: Bucket, hub: Hub, arguments: list[str]
) -> None:
    shared = tmp_path / "scratch" / "cache"
    online = {**s3.env, **ONLINE, "HF_ENDPOINT": hub.endpoint, "SFT_JOB_CACHE": str(shared)}
    pulled = finish(["pull", *arguments], tmp_path / "login", online)
    assert f"all of it is in {shared}" in pulled.said()
    assert not (tmp_path / "login" / "cache").exists()

    asked, before = len(hub.requests), written_below(shared)
    nowhere = f"http://127.0.0.1:{free_port()}"
    cut_off = {**online, "HF_ENDPOINT": nowhere, "AWS_ENDPOINT_URL": nowhere}
    first = finish(["run", *arguments, *sets({"train.max_steps": 4})], tmp_path / "node-1", cut_off)
    assert f"hf://org/tiny@{COMMIT} is read in {shared}, as it was pulled there" in first.said()
    assert f"{s3.uri}/chats is read in {shared}, as it was pulled there" in first.said()
    assert "finished: adapter of step 4" in first.said()
    assert len(hub.requests) == asked and "cannot be" not in first.said()
    assert written_below(shared) == before, "a run wrote to what others read"
    assert not list((tmp_path / "node-1").glob("cache/blobs/*")), "it was copied to the node"

    (tmp_path / "runs/one/final/result.json").unlink()
    again = finish(["run", *arguments], tmp_path / "node-2", cut_off)  # another node goes on from the last commit
    assert "resumed from step 4" in again.said()


def test_a_cache_that_was_never_filled_is_one_clear_line(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "nothing").mkdir()
    job = Job(["run", *arguments], tmp_path / "node", {"SFT_JOB_CACHE": str(tmp_path / "nothing")})
    assert job.ended() == 78
    last = job.said().splitlines()[-1]
    assert "nothing was pulled there" in last and "sft-job pull RUN.yaml" in last


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_only_be_read_is_enough(tmp_path: Path, s3: Bucket, hub: Hub, arguments: list[str]) -> None:
    shared = tmp_path / "cache"
    online = {**s3.env, **ONLINE, "HF_ENDPOINT": hub.endpoint, "SFT_JOB_CACHE": str(shared)}
    finish(["pull", *arguments], tmp_path / "login", online)
    for path in (*shared.rglob("*"), shared):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        finish(["run", *arguments], tmp_path / "node", {**online, "HF_ENDPOINT": "http://127.0.0.1:9"})
    finally:
        for path in (shared, *shared.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_base_on_a_shared_filesystem_is_read_in_place(tmp_path: Path) -> None:
    base = make(tmp_path / "scratch" / "base")
    write_demo_chat(tmp_path / "chat.jsonl")
    fields = {
        "run": str(tmp_path / "run"),
        "model.base": str(base),
        "data.train": [str(tmp_path / "chat.jsonl")],
        "data.max_length": 64,
        "lora.r": 4,
        "train.max_steps": 2,
        "parallel.device": "cpu",
    }
    (tmp_path / "run.yaml").write_text("{}\n", encoding="utf-8")
    finish(["run", str(tmp_path / "run.yaml"), *sets(fields)], tmp_path / "node")
    assert not list((tmp_path / "node").glob("cache/blobs/*"))
