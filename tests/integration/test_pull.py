"""Pulls from a real S3 server by real processes: once for all of them, and never from the start again."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.errors import DataError, StorageError
from job.storage.cache import Cache
from job.storage.pull import Pull, pull_data, pull_tokenizer, pull_weights
from job.storage.transfer import PART_BYTES
from tests.servers import Fault, FaultyProxy

PARTS = 3
WORKER = """
import sys
from pathlib import Path
from job.storage.pull import Pull, pull_weights
pull = Pull(progress=lambda *event: print(*event, flush=True))
print(pull_weights(sys.argv[1], Path(sys.argv[2]), pull).path, flush=True)
"""


def put_model(bucket: Any, folder: str, payload: bytes = b"weights") -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, len(payload)]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + payload
    files = {"config.json": b'{"model_type": "gemma"}', "tokenizer.json": b"{}", "model.safetensors": weights}
    for name, data in files.items():
        bucket.client().put_object(Bucket=bucket.name, Key=f"{folder}/{name}", Body=data, ChecksumAlgorithm="CRC64NVME")
    return weights


def start(proxy: FaultyProxy, home: Path, uri: str, dest: Path) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "AWS_ENDPOINT_URL": proxy.endpoint,
        "SFT_JOB_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen([sys.executable, "-c", WORKER, uri, str(dest)], env=env, stdout=subprocess.PIPE, text=True)


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if true():
            return
        assert process.poll() is None, "it ended before"
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def downloads(proxy: FaultyProxy, name: str) -> int:
    return len(proxy.seen(f"^GET .*{name}"))


@pytest.fixture
def big(s3: Any) -> bytes:
    return put_model(s3, "base", os.urandom(1 << 20) * ((PARTS - 1) * PART_BYTES // (1 << 20)) + b"rest")


def test_two_processes_that_pull_the_same_at_once_download_it_once(
    s3: Any, faulty: FaultyProxy, tmp_path: Path, big: bytes
) -> None:
    fault = Fault("status", match="^GET .*model.safetensors", times=1000)
    faulty.faults.append(fault)
    first = start(faulty, tmp_path / "home", f"{s3.uri}/base", tmp_path / "one")
    until(lambda: downloads(faulty, "model.safetensors"), first)
    second = start(faulty, tmp_path / "home", f"{s3.uri}/base", tmp_path / "two")
    assert second.stdout
    until(lambda: second.stdout and second.stdout.readline().startswith("weights"), second)  # it wants them, too
    failed, fault.times = 1000 - fault.times, 0
    for process, dest in ((first, tmp_path / "one"), (second, tmp_path / "two")):
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert out.splitlines()[-1] == str(dest)
        assert (dest / "model.safetensors").read_bytes() == big
    assert downloads(faulty, "model.safetensors") - failed == PARTS
    assert downloads(faulty, "config.json") == 1
    assert (tmp_path / "one/model.safetensors").samefile(tmp_path / "two/model.safetensors")


def test_a_killed_pull_goes_on_where_it_was(s3: Any, faulty: FaultyProxy, tmp_path: Path, big: bytes) -> None:
    faulty.faults.append(Fault("stall", match="^GET .*model.safetensors", after=PARTS - 1))
    first = start(faulty, tmp_path / "home", f"{s3.uri}/base", tmp_path / "out/base")
    until(lambda: parts_noted(tmp_path / "home") == PARTS - 1, first)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert not (tmp_path / "out/base").exists()
    faulty.faults.clear()
    before = downloads(faulty, "model.safetensors")
    second = start(faulty, tmp_path / "home", f"{s3.uri}/base", tmp_path / "out/base")
    second.communicate(timeout=120)
    assert second.returncode == 0
    assert (tmp_path / "out/base/model.safetensors").read_bytes() == big
    assert downloads(faulty, "model.safetensors") - before == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base"]


def parts_noted(home: Path) -> int:
    return sum(path.read_text().count("]\n") for path in home.glob("cache/blobs/*/.*.journal"))


def test_a_base_and_its_tokenizer_need_no_listing(s3: Any, faulty: FaultyProxy, tmp_path: Path) -> None:
    weights = put_model(s3, "models/base")
    pull = Pull(Cache(tmp_path / "cache"))
    base = pull_weights(f"{s3.uri}/models/base/", tmp_path / "base", pull)
    tokenizer = pull_tokenizer(f"{s3.uri}/models/base", tmp_path / "tokenizer", pull)
    assert (base.path / "model.safetensors").read_bytes() == weights
    assert set(tokenizer.files) == {"config.json", "tokenizer.json"}
    assert base.source == f"{s3.uri}/models/base"
    assert not faulty.seen("list-type")
    assert downloads(faulty, "config.json") == 1


def test_a_copy_of_the_same_model_elsewhere_is_not_downloaded_again(
    s3: Any, faulty: FaultyProxy, tmp_path: Path
) -> None:
    for folder in ("base", "copy"):
        put_model(s3, folder)
    pull = Pull(Cache(tmp_path / "cache"))
    one, two = (pull_weights(f"{s3.uri}/{folder}", tmp_path / folder, pull) for folder in ("base", "copy"))
    assert one.files == two.files
    assert one.files["model.safetensors"].startswith("crc64nvme:")
    assert downloads(faulty, "model.safetensors") == 1


def test_a_glob_is_expanded_by_listing_its_folder(s3: Any, faulty: FaultyProxy, tmp_path: Path) -> None:
    for name in (
        "data/chat-2.jsonl",
        "data/chat-1.jsonl",
        "data/other.jsonl",
        "data/deep/chat-3.jsonl",
        "data2/chat-4.jsonl",
    ):
        s3.client().put_object(Bucket=s3.name, Key=name, Body=f'"{name}"\n'.encode())
    files = pull_data(f"{s3.uri}/data/chat-*.jsonl", tmp_path / "data", Pull(Cache(tmp_path / "cache")))
    assert [file.uri for file in files] == [f"{s3.uri}/data/chat-{number}.jsonl" for number in (1, 2)]
    assert [file.path.read_text() for file in files] == ['"data/chat-1.jsonl"\n', '"data/chat-2.jsonl"\n']
    assert len(pull_data(f"{s3.uri}/data/", tmp_path / "data", Pull(Cache(tmp_path / "cache")))) == 4


def test_missing_things_are_data_errors_and_a_missing_bucket_or_a_refusal_is_not(
    s3: Any, faulty: FaultyProxy, tmp_path: Path
) -> None:
    pull = Pull(Cache(tmp_path / "cache"))
    with pytest.raises(DataError, match=rf"{s3.uri}/nothing\.jsonl"):
        pull_data(f"{s3.uri}/nothing.jsonl", tmp_path / "data", pull)
    with pytest.raises(DataError, match="is no model"):
        pull_weights(f"{s3.uri}/nothing", tmp_path / "base", pull)
    with pytest.raises(StorageError, match="no-such-bucket"):
        pull_weights("s3://no-such-bucket/base", tmp_path / "base", pull)
    with pytest.raises(StorageError, match="no-such-bucket"):
        pull_data("s3://no-such-bucket/*.jsonl", tmp_path / "data", pull)
    put_model(s3, "base")
    faulty.faults.append(Fault("status", match="^(GET|HEAD) ", status=403, code="AccessDenied"))
    with pytest.raises(StorageError, match="refused"):
        pull_weights(f"{s3.uri}/base", tmp_path / "base", pull)
    assert not (tmp_path / "base").exists()


def test_nothing_heavy_is_imported_to_be_able_to_pull() -> None:
    heavy = "{'boto3', 'botocore', 'torch', 'transformers', 'huggingface_hub', 'urllib3'}"
    code = f"import sys, job.storage.pull, job.storage.hub; print(sorted({heavy} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"
