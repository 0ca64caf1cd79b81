"""Which URI opens which store, and what opening one costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import ConfigError
from job.storage.store import is_local, open_store, split_uri
from tests.servers import Bucket


def test_a_path_opens_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("runs/one/")
    assert store.uri == str(tmp_path / "runs" / "one")
    assert not (tmp_path / "runs").exists(), "opening writes nothing"
    store.put("k", b"1")
    assert (tmp_path / "runs" / "one" / "k").read_bytes() == b"1"


def test_an_s3_uri_opens_a_bucket_below_its_prefix(s3: Bucket) -> None:
    store = open_store(f"{s3.uri}/runs/one/")
    assert store.uri == f"{s3.uri}/runs/one"
    store.put("k", b"1")
    assert s3.client().get_object(Bucket=s3.name, Key="runs/one/k")["Body"].read() == b"1"


@pytest.mark.parametrize("uri", ["gs://bucket/x", "hf://org/name", "s3://", "s3:///k", "s3:/bucket/x", "s3:bucket", ""])
def test_what_is_no_store_is_a_mistake_in_the_config(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(uri)
    assert "s3://bucket/prefix" in str(caught.value)


@pytest.mark.parametrize("name", ["ht!tp:::", "a:b", ":"])
def test_a_name_that_begins_like_a_uri_is_a_folder_only_where_it_is_written_as_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"a folder of that name is \./"):
        open_store(name)
    assert open_store(f"./{name}").uri == str(tmp_path / name)
    assert open_store(f"runs/{name}").uri == str(tmp_path / "runs" / name)


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket/a/b.json", ("s3://bucket/a", "b.json")),
        ("s3://bucket/b.json", ("s3://bucket", "b.json")),
        ("memory://name/k", ("memory://name", "k")),
        ("/data/chat.jsonl", ("/data", "chat.jsonl")),
        ("/chat.jsonl", ("/", "chat.jsonl")),
    ],
)
def test_the_uri_of_an_object_is_split_into_store_and_key(uri: str, parts: tuple[str, str]) -> None:
    assert split_uri(uri) == parts


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_uri("chat.jsonl") == (str(tmp_path), "chat.jsonl")


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/a/", "s3://", "", "/"])
def test_a_uri_that_names_no_object_is_not_split(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no single object"):
        split_uri(uri)


@pytest.mark.parametrize(("uri", "local"), [("/a", True), ("a", True), ("s3://a", False), ("hf://a/b", False)])
def test_a_path_is_local_and_a_uri_is_not(uri: str, local: bool) -> None:
    assert is_local(uri) is local


def test_a_folder_store_loads_no_s3_client(tmp_path: Path) -> None:
    code = "import sys, job.storage.store as s; s.open_store(sys.argv[1]).put('k', b'1'); print('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
