"""The hub as a source, through its own client, against a local server that speaks the few endpoints needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ConfigError, DataError, ExitCode, StorageError
from job.storage import hub, hub_client
from job.storage.cache import Cache
from job.storage.headers import describe, read
from job.storage.pull import Pull, pull_data, pull_tokenizer, pull_weights
from tests.hub_server import COMMIT, Hub, hub_server

LATER = "b" * 40


def tensors() -> bytes:
    header = b'{"w": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}}'
    return len(header).to_bytes(8, "little") + header + b"abc"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server() as served:
        files = {"config.json": b'{"model_type": "gemma"}', "tokenizer.json": b"{}", "model.safetensors": tensors()}
        served.commits["models/org/tiny"] = {COMMIT: files, LATER: files | {"tokenizer.json": b'{"later": 1}'}}
        served.commits["datasets/org/rows"] = {COMMIT: {"a.jsonl": b"1\n", "b.jsonl": b"2\n", "README.md": b"no"}}
        monkeypatch.setenv("HF_ENDPOINT", served.endpoint)
        monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        # the client reads the variable once, when it is imported: perhaps by an earlier test
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "PATIENT_SECONDS", 0.0)
        monkeypatch.setattr(hub, "SHORT_SECONDS", 0.0)
        yield served


def test_a_model_is_pinned_to_its_commit_and_pulled_by_name(server: Hub, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    pull = Pull(Cache(), progress=lambda *event: seen.append(event))
    weights = pull_weights("hf://org/tiny@main", tmp_path / "base", pull)
    tokenizer = pull_tokenizer("hf://org/tiny", tmp_path / "tokenizer", pull)
    assert weights.source == tokenizer.source == f"hf://org/tiny@{COMMIT}"
    assert set(weights.files) == {"config.json", "model.safetensors"}
    assert (weights.path / "model.safetensors").read_bytes() == tensors()
    assert (tokenizer.path / "tokenizer.json").read_bytes() == b"{}"
    assert seen[-1][1] == seen[-1][2] > 0
    assert [name for name in server.requests if name.startswith("GET") and "config.json" in name] == [
        f"GET /org/tiny/resolve/{COMMIT}/config.json"
    ]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_model_is_described_without_its_weights(server: Hub, ranges: bool) -> None:
    server.ranges = ranges
    pull = Pull(Cache())
    found = describe("hf://org/tiny", pull)
    assert found.source == f"hf://org/tiny@{COMMIT}"
    assert found.tensors == [("w", (3,), "U8")] and found.weight_bytes == len(tensors())
    at = pull.source("hf://org/tiny")
    assert [read(at, "model.safetensors", start, 2) for start in (0, len(tensors()) - 1, 10_000)] == [
        tensors()[:2],
        b"c",
        b"",
    ]


def test_another_revision_is_another_pin(server: Hub, tmp_path: Path) -> None:
    pulled = pull_tokenizer(f"hf://org/tiny@{LATER}", tmp_path / "tokenizer", Pull(Cache()))
    assert pulled.source == f"hf://org/tiny@{LATER}"
    assert (pulled.path / "tokenizer.json").read_bytes() == b'{"later": 1}'


def test_data_sets_are_files_and_globs(server: Hub, tmp_path: Path) -> None:
    pull = Pull(Cache())
    files = pull_data("hf://datasets/org/rows@main/*.jsonl", tmp_path / "data", pull)
    assert [(file.uri, file.path.read_text()) for file in files] == [
        (f"hf://datasets/org/rows@{COMMIT}/a.jsonl", "1\n"),
        (f"hf://datasets/org/rows@{COMMIT}/b.jsonl", "2\n"),
    ]
    assert len(pull_data("hf://datasets/org/rows/a.jsonl", tmp_path / "data", pull)) == 1
    assert len(pull_data("hf://datasets/org/rows", tmp_path / "data", pull)) == 2
    with pytest.raises(DataError, match=r"hf://datasets/org/rows@main/c\.jsonl"):
        pull_data("hf://datasets/org/rows@main/c.jsonl", tmp_path / "data", pull)


def test_of_a_data_set_the_training_split_is_taken_or_the_one_asked_for(server: Hub, tmp_path: Path) -> None:
    names = ("README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet",
             "data/train-00001-of-00002.parquet", "extra/val.csv.gz")  # fmt: skip
    server.commits["datasets/org/split"] = {COMMIT: {name: name.encode() for name in names}}
    said: list[str] = []
    pull = Pull(Cache(), notice=said.append)

    def pulled(uri: str, **options: Any) -> list[str]:
        files = pull_data(uri, tmp_path / "data", pull, **options)
        assert all(file.path.read_text() == file.uri.partition("@")[2].partition("/")[2] for file in files)
        return [file.uri.rpartition("/")[2] for file in files]

    train = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert pulled("hf://datasets/org/split") == pulled("hf://datasets/org/split@main/data") == train
    assert said[0] == "hf://datasets/org/split holds the splits test, train, validation: taking train, 2 of 4 files"
    assert pulled("hf://datasets/org/split", split="dev") == ["val.csv.gz"]
    assert pulled("hf://datasets/org/split", prefer=("validation", "test")) == ["val.csv.gz"]
    assert pulled("hf://datasets/org/split/extra/") == ["val.csv.gz"]
    with pytest.raises(DataError, match=r"there is no split tset \(there are test, train, validation\)"):
        pulled("hf://datasets/org/split", split="tset")
    with pytest.raises(DataError, match="hf://datasets/org/split/nowhere: there is no such object, and no folder"):
        pulled("hf://datasets/org/split/nowhere")


def test_a_gated_repository_says_what_to_do(server: Hub, tmp_path: Path) -> None:
    server.gated.add("models/org/tiny")
    message = rf"hf://org/tiny@{COMMIT} is gated: accept the licence at {server.endpoint}/org/tiny and set HF_TOKEN"
    with pytest.raises(DataError, match=f"^{message}$"):
        pull_weights("hf://org/tiny", tmp_path / "base", Pull(Cache()))
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://org/nothing", "is not on the hub, or is private"),
        ("hf://org/tiny@nothing", "has no such revision"),
        ("hf://datasets/org/rows", "is no model"),
    ],
)
def test_what_is_not_there_is_one_clear_line(server: Hub, tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pull_weights(uri, tmp_path / "base", Pull(Cache()))
    assert "\n" not in str(caught.value)


def test_a_uri_that_names_no_repository_is_a_config_error(server: Hub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hf://org/name@revision"):
        pull_weights("hf://tiny", tmp_path / "base", Pull(Cache()))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_arrives_damaged_is_not_used(server: Hub, tmp_path: Path, name: str) -> None:
    server.damaged.add(name)
    with pytest.raises(StorageError, match=f"{name} arrived damaged"):
        pull_weights("hf://org/tiny", tmp_path / "base", Pull(Cache()))
    server.damaged.clear()
    assert pull_weights("hf://org/tiny", tmp_path / "base", Pull(Cache())).files


def test_a_hub_that_is_down_is_a_storage_error_until_something_was_pulled(server: Hub, tmp_path: Path) -> None:
    server.broken = True
    with pytest.raises(StorageError, match="the hub cannot be asked") as caught:
        pull_tokenizer("hf://org/tiny", tmp_path / "tokenizer", Pull(Cache()))
    assert caught.value.exit_code == ExitCode.STORAGE
    server.broken = False
    pull_tokenizer("hf://org/tiny", tmp_path / "tokenizer", Pull(Cache()))
    server.broken = True
    notices: list[str] = []
    pulled = pull_tokenizer("hf://org/tiny", tmp_path / "again", Pull(Cache(), notice=notices.append))
    assert pulled.source == f"hf://org/tiny@{COMMIT}"
    assert len(notices) == 1


def test_offline_mode_asks_nobody(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull_weights("hf://org/tiny", tmp_path / "base", Pull(Cache()))
    server.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pulled = pull_weights("hf://org/tiny", tmp_path / "again", Pull(Cache()))
    assert (pulled.path / "model.safetensors").read_bytes() == tensors()
    assert pull_weights(pulled.source, tmp_path / "pinned", Pull(Cache())).files == pulled.files
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set"):
        pull_weights("hf://org/other", tmp_path / "other", Pull(Cache()))
    assert server.requests == []


def test_a_node_without_network_finds_what_was_pinned_and_pulled_elsewhere(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Cache(tmp_path / "shared")
    before = pull_weights("hf://org/tiny@main", tmp_path / "login", Pull(shared))
    pull_data("hf://datasets/org/rows/*.jsonl", tmp_path / "login-data", Pull(shared))
    server.branches["main"] = LATER  # what was pulled counts, not what is there by now
    server.requests.clear()
    monkeypatch.setenv("SFT_JOB_CACHE", str(tmp_path / "shared"))
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "node"))
    notices: list[str] = []
    pull = Pull(notice=notices.append)
    base = pull_weights("hf://org/tiny@main", tmp_path / "base", pull)
    assert (base.source, base.files) == (before.source, before.files)
    assert pull_weights(before.source, tmp_path / "resumed", pull).files == before.files
    assert len(pull_data("hf://datasets/org/rows/*.jsonl", tmp_path / "data", pull)) == 2
    assert not server.requests
    assert notices[0] == f"hf://org/tiny@{COMMIT} is read in {tmp_path / 'shared'}, as it was pulled there"
    assert len(notices) == 2
    assert not list((tmp_path / "node").glob("cache/blobs/*")), "it was copied to the node"


def test_what_was_not_pulled_elsewhere_is_asked_of_the_hub_at_the_pinned_commit(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull_tokenizer("hf://org/tiny", tmp_path / "login", Pull(Cache(tmp_path / "shared")))
    server.branches["main"] = LATER
    monkeypatch.setenv("SFT_JOB_CACHE", str(tmp_path / "shared"))
    pull = Pull()
    assert pull_weights("hf://org/tiny", tmp_path / "base", pull).source == f"hf://org/tiny@{COMMIT}"
    server.broken = True
    with pytest.raises(StorageError, match="the hub cannot be asked"):
        pull_data("hf://org/tiny/rows.jsonl", tmp_path / "data", pull)


def test_offline_what_the_hub_client_has_in_its_own_cache_is_read_in_place(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    snapshot = tmp_path / f"hub/models--org--own/snapshots/{COMMIT}"
    snapshot.mkdir(parents=True)
    for name, data in server.commits["models/org/tiny"][COMMIT].items():
        (snapshot / name).write_bytes(data)
    (tmp_path / "hub/models--org--own/refs").mkdir()
    (tmp_path / "hub/models--org--own/refs/main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pull_weights("hf://org/own", tmp_path / "base", Pull(Cache())).path == snapshot
    assert server.requests == []


def test_a_lost_connection_is_tried_again(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.broken = True
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        server.broken = False

    monkeypatch.setattr(hub_client.time, "sleep", sleep)
    assert hub_client.asked(hub_client.Repository("org/tiny", "model"), 60.0).sha == COMMIT
    assert pauses == [1.0]
