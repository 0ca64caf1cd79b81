"""Headers are read as they stand in real files, wherever these lie; what is no model is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from job.errors import DataError
from job.storage.cache import Cache
from job.storage.headers import describe, folder_heads, header
from job.storage.puller import Pull
from job.storage.sources import Folder
from tests.servers import Bucket
from tests.shapes import GEMMA_2B, decoder, write_headers


def pull(tmp_path: Path) -> Pull:
    return Pull(Cache(tmp_path / "cache"))


def test_the_header_of_a_real_file_is_read(tmp_path: Path) -> None:
    save_file({"a.weight": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, tmp_path / "model.safetensors")
    assert sorted(folder_heads(tmp_path)) == [("a.weight", (3, 4), "F32"), ("b", (5,), "F16")]


@pytest.mark.parametrize("files", [1, 3])
def test_a_folders_tensors_are_all_found_and_no_weight_is_read(tmp_path: Path, files: int) -> None:
    base = write_headers(tmp_path / "base", GEMMA_2B, tied=True, files=files)
    found = describe(str(base), pull(tmp_path))
    assert sorted(found.tensors) == sorted((t.name, t.shape, t.dtype) for t in decoder(GEMMA_2B, tied=True))
    assert found.config["model_type"] == "gemma" and found.weight_bytes > 5e9


def test_a_header_longer_than_the_first_read_is_read_to_its_end(tmp_path: Path) -> None:
    names = {f"{'long' * 20}.{number}": np.zeros(1, np.float32) for number in range(1000)}
    save_file(names, tmp_path / "model.safetensors")
    assert {name for name, _, _ in header(Folder(tmp_path), "model.safetensors")} == set(names)


def test_on_s3_a_model_is_described_by_a_few_ranged_reads(tmp_path: Path, s3: Bucket) -> None:
    client = s3.client()
    for name, size in (("model-00000.safetensors", 40 << 20), ("model-00001.safetensors", 8)):
        body = json.dumps({name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
        data = len(body).to_bytes(8, "little") + body + bytes(size)
        client.put_object(Bucket=s3.name, Key=f"base/{name}", Body=data)
    client.put_object(Bucket=s3.name, Key="base/config.json", Body=b'{"model_type": "x"}')
    index = {"weight_map": {"a": "model-00000.safetensors", "b": "model-00001.safetensors"}}
    client.put_object(Bucket=s3.name, Key="base/model.safetensors.index.json", Body=json.dumps(index).encode())
    found = describe(f"s3://{s3.name}/base", pull(tmp_path))
    assert len(found.tensors) == 2 and found.weight_bytes > 40 << 20
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 1 << 20


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "config.json is missing"),
        ({"adapter_config.json": b"{}"}, "an adapter is there: name its base"),
        ({"config.json": b'{"model_type": "x"}'}, "has no weights"),
        ({"config.json": b"{", "model.safetensors": b""}, "is not JSON"),
        ({"config.json": b'{"model_type": "x"}', "model.safetensors": b"abc"}, "not a safetensors file"),
        ({"config.json": b'{"model_type": "x"}', "model.safetensors": b"\x05" + bytes(7) + b"{[]{}"}, "is damaged"),
        (
            {
                "config.json": b'{"model_type": "x"}',
                "model.safetensors.index.json": b'{"weight_map": {"a": "lost.safetensors"}}',
            },
            "lost.safetensors is missing",
        ),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for name, data in files.items():
        (base / name).write_bytes(data)
    with pytest.raises(DataError, match=words) as refused:
        describe(str(base), pull(tmp_path))
    assert "\n" not in str(refused.value)


def test_weights_without_headers_are_described_by_their_size_alone(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_bytes(b'{"model_type": "x"}')
    (base / "pytorch_model.bin").write_bytes(bytes(100))
    found = describe(str(base), pull(tmp_path))
    assert found.tensors == [] and found.weight_bytes == 100
