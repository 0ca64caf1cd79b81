"""Pulls over a real folder store that stands for a remote one."""

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError, HardwareError, JobError, Stopped, StorageError
from job.storage.cache import MARGIN_BYTES, Cache
from job.storage.folder import FolderStore
from job.storage.pull import Pull, pull_data, pull_files, pull_tokenizer, pull_weights
from job.storage.store import Entry, NotFound, Unreachable


def safetensors(payload: bytes) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}).encode()
    return struct.pack("<Q", len(header)) + header + payload


def write_model(folder: Path, shards: int = 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma"}))
    (folder / "generation_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    names = [f"model-{number:05}-of-{shards:05}.safetensors" for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(safetensors(bytes([number]) * 5000))
    index = {"weight_map": {f"layer.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


class Remote:
    """Opens s3://NAME/... as the folder tmp/remote/NAME/..., counts downloads, and fails as it is told to."""

    def __init__(self, root: Path) -> None:
        self.root, self.downloads, self.fault = root, [], None
        self.fault: Callable[[str], None] | None

    def open(self, uri: str, buckets: object = None, give_up_after_seconds: float = 0) -> Any:
        outer = self

        class Store(FolderStore):
            def stat(self, key: str) -> Entry:
                if outer.fault:
                    outer.fault(key)
                return super().stat(key)

            def list(self, prefix: str) -> list[Entry]:
                if outer.fault:
                    outer.fault(prefix)
                return super().list(prefix)

            def download(self, key: str, *rest: Any, **named: Any) -> Entry:
                outer.downloads.append(key)
                return super().download(key, *rest, **named)

        return Store(self.root / uri.removeprefix("s3://"))


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


def pull_with(remote: Remote, tmp_path: Path, **options: Any) -> Pull:
    cache = options.pop("cache", None) or Cache(tmp_path / "cache")
    return Pull(cache, open_store=remote.open, **options)


def test_a_base_is_pulled_by_the_names_its_config_and_index_give(remote: Remote, tmp_path: Path) -> None:
    model = write_model(tmp_path / "remote/models/base")
    (model / "flax_model.msgpack").write_bytes(b"not wanted")
    pulled = pull_weights("s3://models/base", tmp_path / "base", pull_with(remote, tmp_path))
    assert pulled.path == tmp_path / "base"
    assert (
        sorted(path.name for path in pulled.path.iterdir())
        == sorted(pulled.files)
        == [
            "config.json",
            "generation_config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ]
    )
    assert pulled.bytes == sum((model / name).stat().st_size for name in pulled.files)
    assert all((pulled.path / name).read_bytes() == (model / name).read_bytes() for name in pulled.files)


def test_a_second_pull_downloads_nothing(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    pull_weights("s3://models/base", tmp_path / "one", pull_with(remote, tmp_path))
    before = list(remote.downloads)
    pull_weights("s3://models/base", tmp_path / "two", pull_with(remote, tmp_path))
    assert remote.downloads == before
    assert (tmp_path / "two/config.json").exists()


def test_a_changed_object_is_pulled_anew(remote: Remote, tmp_path: Path) -> None:
    model = write_model(tmp_path / "remote/models/base")
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    (model / "tokenizer.json").write_text('{"new": 1}')
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    assert (tmp_path / "tokenizer/tokenizer.json").read_text() == '{"new": 1}'


def test_weights_as_one_file_or_as_bin_are_found(remote: Remote, tmp_path: Path) -> None:
    for name, content in (("model.safetensors", safetensors(b"abc")), ("pytorch_model.bin", b"pickled")):
        folder = tmp_path / "remote/models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "gemma"}')
        (folder / name).write_bytes(content)
        pulled = pull_weights(f"s3://models/{name}", tmp_path / name, pull_with(remote, tmp_path))
        assert set(pulled.files) == {"config.json", name}


def test_python_files_come_only_where_their_code_is_trusted(remote: Remote, tmp_path: Path) -> None:
    (write_model(tmp_path / "remote/models/base") / "modeling_mine.py").write_text("pass")
    pull = pull_with(remote, tmp_path)
    assert "modeling_mine.py" not in pull_weights("s3://models/base", tmp_path / "base", pull).files
    assert "modeling_mine.py" in pull_weights("s3://models/base", tmp_path / "base", pull, trust_remote_code=True).files
    assert "modeling_mine.py" in pull_tokenizer("s3://models/base", tmp_path / "t", pull, trust_remote_code=True).files


@pytest.mark.parametrize("uri", ["s3://models/base", "{remote}/models/base"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "config.json").unlink(), r"is no model: config\.json is missing"),
        (lambda model: (model / "config.json").write_text("{"), r"config\.json is not JSON"),
        (lambda model: (model / "config.json").write_text("[]"), r"config\.json is not a JSON object"),
        (lambda model: (model / "config.json").write_text("{}"), r"config\.json names no model_type"),
        (lambda model: (model / "model.safetensors.index.json").unlink(), "has no weights"),
        (lambda model: (model / "model.safetensors.index.json").write_text("{}"), "no weight_map"),
        (
            lambda model: (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret"}}'),
            "outside the model's folder",
        ),
        (
            lambda model: (model / "model-00002-of-00002.safetensors").unlink(),
            r"model-00002-of-00002\.safetensors is missing, though model\.safetensors\.index\.json names it",
        ),
        (
            lambda model: (model / "model-00002-of-00002.safetensors").write_bytes(safetensors(b"x" * 5000)[:-1]),
            r"model-00002-of-00002\.safetensors is truncated",
        ),
        (
            lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(safetensors(b"x" * 5000) + b"!"),
            r"model-00001-of-00002\.safetensors is damaged",
        ),
        (lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(b""), "truncated"),
        (lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(b"<html>nope</html>"), "truncated"),
        (
            lambda model: (model / "model-00001-of-00002.safetensors").write_bytes(struct.pack("<Q", 4) + b"nope"),
            "header cannot be read",
        ),
    ],
)
def test_what_is_no_whole_model_is_named_and_leaves_nothing(
    remote: Remote, tmp_path: Path, uri: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(write_model(tmp_path / "remote/models/base"))
    with pytest.raises(DataError, match=message) as caught:
        pull_weights(uri.format(remote=tmp_path / "remote"), tmp_path / "out/base", pull_with(remote, tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_adapter_given_as_base_is_called_one(remote: Remote, tmp_path: Path) -> None:
    folder = tmp_path / "remote/models/adapter"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="an adapter is there"):
        pull_weights("s3://models/adapter", tmp_path / "base", pull_with(remote, tmp_path))


def test_a_folder_without_vocabulary_is_no_tokenizer(remote: Remote, tmp_path: Path) -> None:
    (write_model(tmp_path / "remote/models/base") / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="holds no tokenizer"):
        pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))


def test_a_local_source_is_read_in_place(remote: Remote, tmp_path: Path) -> None:
    model = write_model(tmp_path / "shared/base")
    pull = pull_with(remote, tmp_path)
    weights, tokenizer = (work(str(model), tmp_path / "out", pull) for work in (pull_weights, pull_tokenizer))
    assert weights.path == tokenizer.path == model
    assert weights.files["config.json"] == f"size:{(model / 'config.json').stat().st_size}"
    assert set(tokenizer.files) == {"tokenizer.json", "chat_template.jinja", "config.json"}
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "cache/blobs").iterdir())


def test_weights_that_cannot_be_read_where_they_lie_are_a_data_error(remote: Remote, tmp_path: Path) -> None:
    model = write_model(tmp_path / "shared/base")
    name = "model-00002-of-00002.safetensors"
    (model / name).unlink()
    (model / name).mkdir()  # no one can read it, whoever runs this
    with pytest.raises(DataError, match=rf"base/{name} cannot be read: Is a directory"):
        pull_weights(str(model), tmp_path / "out", pull_with(remote, tmp_path))


@pytest.mark.parametrize("kind", ["nowhere", "a file"])
def test_a_local_source_that_is_no_folder_is_an_error(remote: Remote, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "base"
    if kind == "a file":
        path.write_text("")
    with pytest.raises(DataError, match="folder"):
        pull_weights(str(path), tmp_path / "out", pull_with(remote, tmp_path))


def test_no_space_is_told_before_the_weights_and_leaves_nothing(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    cache = Cache(tmp_path / "cache", free=lambda folder: MARGIN_BYTES + 5000)
    with pytest.raises(HardwareError, match="SFT_JOB_HOME"):
        pull_weights("s3://models/base", tmp_path / "out/base", pull_with(remote, tmp_path, cache=cache))
    assert not any(name.endswith(".safetensors") for name in remote.downloads)
    assert list((tmp_path / "out").iterdir()) == []


def test_progress_goes_from_nothing_to_all_of_it(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    seen: list[tuple[str, int, int]] = []
    pull = pull_with(remote, tmp_path, progress=lambda *event: seen.append(event))
    pull_weights("s3://models/base", tmp_path / "base", pull)
    weights = [(done, total) for what, done, total in seen if what == "weights"]
    assert weights[0][0] == 0
    assert weights == sorted(weights)
    assert weights[-1][0] == weights[-1][1] > 10_000


def test_a_stop_ends_the_pull_and_what_arrived_is_kept(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    stop: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "weights" and done:
            stop.append(done)

    pull = pull_with(remote, tmp_path, progress=progress, stopped=lambda: bool(stop), parallel=1)
    with pytest.raises(Stopped):
        pull_weights("s3://models/base", tmp_path / "base", pull)
    assert not (tmp_path / "base").exists()
    small = remote.downloads.count("config.json")
    pull_weights("s3://models/base", tmp_path / "base", pull_with(remote, tmp_path))
    assert remote.downloads.count("config.json") == small == 1


def test_a_node_without_network_runs_on_what_was_pulled_before(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    data = tmp_path / "remote/data"
    data.mkdir(parents=True)
    (data / "a.jsonl").write_text("{}\n")
    pull = pull_with(remote, tmp_path)
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull)
    pull_weights("s3://models/base", tmp_path / "base", pull)
    pull_data("s3://data/*.jsonl", tmp_path / "data", pull)
    remote.fault = unreachable
    notices: list[str] = []
    again = pull_with(remote, tmp_path, notice=notices.append)
    assert "chat_template.jinja" in pull_tokenizer("s3://models/base", tmp_path / "t2", again).files
    assert (pull_weights("s3://models/base", tmp_path / "b2", again).path / "config.json").exists()
    assert [file.path.read_text() for file in pull_data("s3://data/*.jsonl", tmp_path / "d2", again)] == ["{}\n"]
    assert len(notices) == 3
    assert "going on with what was pulled" in notices[0]


def test_half_of_what_was_pulled_never_passes_for_all_of_it(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    data = tmp_path / "remote/data"
    data.mkdir(parents=True)
    for name in "ab":
        (data / f"{name}.jsonl").write_text(f'"{name}"\n')
    pull = pull_with(remote, tmp_path)
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull)
    pull_data("s3://data/*.jsonl", tmp_path / "data", pull)
    remote.fault = unreachable
    for uri, evicted in (("remote/models/base", "chat_template.jinja"), ("remote/data", "b.jsonl")):
        file = f"{tmp_path}/{uri}/{evicted}"
        entry = pull.cache.recall(file)
        assert entry is not None
        pull.cache.blob(file, entry).discard()
    before = list(remote.downloads)
    with pytest.raises(StorageError, match="gone"):
        pull_tokenizer("s3://models/base", tmp_path / "t2", pull_with(remote, tmp_path))
    with pytest.raises(StorageError, match="gone"):
        pull_data("s3://data/*.jsonl", tmp_path / "d2", pull_with(remote, tmp_path))
    with pytest.raises(StorageError, match="gone"):  # never pulled at all
        pull_weights("s3://models/base", tmp_path / "b2", pull_with(remote, tmp_path))
    assert remote.downloads == before  # nobody waits for a store that cannot be reached


def test_what_the_source_no_longer_has_does_not_come_back_when_it_cannot_be_reached(
    remote: Remote, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "remote/models/base")
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    (model / "chat_template.jinja").unlink()
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    remote.fault = unreachable
    again = pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    assert set(again.files) == {"config.json", "tokenizer.json"}


def test_what_a_killed_pull_left_beside_the_folder_does_not_get_into_it(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    (tmp_path / "tokenizer").rename(tmp_path / ".tokenizer.partial")
    (tmp_path / ".tokenizer.partial/stale.json").write_text("{}")
    pulled = pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    assert {path.name for path in pulled.path.iterdir()} == set(pulled.files)
    assert not (tmp_path / ".tokenizer.partial").exists()


def unreachable(key: str) -> None:
    raise Unreachable("the network is gone")


def refused(message: str) -> StorageError:
    error = StorageError(message)
    error.__cause__ = Exception()
    error.__cause__.response = {"Error": {"Code": "403"}, "ResponseMetadata": {"HTTPStatusCode": 403}}  # type: ignore[attr-defined]
    return error


def test_who_may_read_but_not_list_can_still_pull(remote: Remote, tmp_path: Path) -> None:
    """Without ListBucket a store answers 403 for what is not there."""
    model = write_model(tmp_path / "remote/models/base")

    def no_list(key: str) -> None:
        if not (model / key).exists():
            raise refused(f"{key} was refused")

    remote.fault = no_list
    pull = pull_with(remote, tmp_path)
    assert "chat_template.jinja" in pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull).files
    assert len(pull_weights("s3://models/base", tmp_path / "base", pull).files) == 5
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model-00002-of-00002\.safetensors was refused"):
        pull_weights("s3://models/base", tmp_path / "base", pull)


def test_refused_credentials_are_not_taken_for_a_missing_file(remote: Remote, tmp_path: Path) -> None:
    def deny(key: str) -> None:
        raise refused("access denied")

    write_model(tmp_path / "remote/models/base")
    pull_tokenizer("s3://models/base", tmp_path / "tokenizer", pull_with(remote, tmp_path))
    remote.fault = deny
    for work in (pull_tokenizer, pull_weights):
        with pytest.raises(StorageError, match="access denied"):
            work("s3://models/base", tmp_path / "out", pull_with(remote, tmp_path))


def test_named_files_are_pulled_or_the_missing_one_is_named(remote: Remote, tmp_path: Path) -> None:
    write_model(tmp_path / "remote/models/base")
    pull = pull_with(remote, tmp_path)
    assert set(pull_files("s3://models/base", ["config.json"], tmp_path / "out", pull).files) == {"config.json"}
    with pytest.raises(DataError, match=r"base/nothing\.json"):
        pull_files("s3://models/base", ["config.json", "nothing.json"], tmp_path / "out", pull)
    assert (tmp_path / "out/config.json").exists()  # as it was


def test_an_object_that_vanishes_between_asking_and_taking_is_an_error(remote: Remote, tmp_path: Path) -> None:
    model = write_model(tmp_path / "remote/models/base")
    pull = pull_with(remote, tmp_path)
    at = pull.source("s3://models/base")
    entries = pull.ask(at, ["config.json"])
    (model / "config.json").unlink()
    with pytest.raises(NotFound) as caught:
        pull.take(at, entries, tmp_path / "out", "config")
    assert isinstance(caught.value, JobError)


# ---- data


@pytest.fixture(params=["s3://data", "local"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    folder = tmp_path / "remote/data"
    (folder / "deep").mkdir(parents=True)
    for name in ("chat-2.jsonl", "chat-1.jsonl", "other.jsonl", ".chat-hidden.jsonl", "notes.txt", "deep/chat-9.jsonl"):
        (folder / name).write_text(f'"{name}"\n')
    return (request.param if request.param != "local" else str(folder)), folder


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("chat-1.jsonl", ["chat-1.jsonl"]),
        ("chat-*.jsonl", ["chat-1.jsonl", "chat-2.jsonl"]),
        ("chat-?.jsonl", ["chat-1.jsonl", "chat-2.jsonl"]),
        ("chat-[!1].jsonl", ["chat-2.jsonl"]),
        ("*/chat-*.jsonl", ["deep/chat-9.jsonl"]),
        ("", ["chat-1.jsonl", "chat-2.jsonl", "deep/chat-9.jsonl", "other.jsonl"]),
        ("deep", ["deep/chat-9.jsonl"]),
        ("[cd]*", ["chat-1.jsonl", "chat-2.jsonl"]),
        ("deep/", ["deep/chat-9.jsonl"]),
    ],
)
def test_data_uris_mean_the_same_on_a_store_and_on_a_path(
    remote: Remote, tmp_path: Path, data: tuple[str, Path], pattern: str, names: list[str]
) -> None:
    root, folder = data
    files = pull_data(f"{root}/{pattern}", tmp_path / "inputs", pull_with(remote, tmp_path))
    assert [file.uri.removeprefix(f"{folder}/") for file in files] == names
    for file, name in zip(files, names, strict=True):
        content = (folder / name).read_bytes()
        assert file.path.read_bytes() == content
        assert (file.size, file.digest) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
        assert (file.path == folder / name) == (root != "s3://data")  # a path is read in place


@pytest.mark.parametrize("pattern", ["nothing.jsonl", "nothing-*.jsonl", "nowhere/", "nowhere/*.jsonl"])
def test_data_that_is_not_there_is_named(remote: Remote, tmp_path: Path, data: tuple[str, Path], pattern: str) -> None:
    with pytest.raises(DataError) as caught:
        pull_data(f"{data[0]}/{pattern}", tmp_path / "inputs", pull_with(remote, tmp_path))
    assert f"{data[0]}/{pattern}" in str(caught.value)


def test_a_single_object_needs_no_listing(remote: Remote, tmp_path: Path, data: tuple[str, Path]) -> None:
    def no_list(key: str) -> None:
        assert key == "chat-1.jsonl", "listed"

    remote.fault = no_list
    assert len(pull_data(f"{data[0]}/chat-1.jsonl", tmp_path / "inputs", pull_with(remote, tmp_path))) == 1


def test_objects_of_one_name_from_two_folders_do_not_meet(
    remote: Remote, tmp_path: Path, data: tuple[str, Path]
) -> None:
    (data[1] / "deep/other.jsonl").write_text("another")
    pull = pull_with(remote, tmp_path)
    one = pull_data(f"{data[0]}/other.jsonl", tmp_path / "inputs", pull)
    two = pull_data(f"{data[0]}/deep/other.jsonl", tmp_path / "inputs", pull)
    assert one[0].path.read_text() != two[0].path.read_text() == "another"
