"""A download that was stopped is gone on with, and nothing is believed that does not read back."""

import os
from pathlib import Path

import pytest

from job.errors import Stopped
from job.storage import transfer
from job.storage.s3 import S3Store
from tests.servers import Bucket, Fault, FaultyProxy

SIZE = 2_500_000
CONTENT = os.urandom(SIZE)
OF_THE_BODY = ["flip", "truncate", "short", "ignore_range", "wrong_range", "reset"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five parts instead of one, so that little data goes all the ways."""
    monkeypatch.setattr(transfer, "PART_BYTES", 500_000)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 100_000)


def put(s3: Bucket, **checksum: str) -> str:
    s3.client().put_object(Bucket=s3.name, Key="a/k", Body=CONTENT, **checksum)
    head = s3.client().head_object(Bucket=s3.name, Key="a/k", ChecksumMode="ENABLED")
    assert ("ChecksumCRC64NVME" in head) == ("ChecksumAlgorithm" in checksum)
    return "a/k"


@pytest.fixture
def key(s3: Bucket) -> str:
    """An object whose CRC64NVME the store has."""
    return put(s3, ChecksumAlgorithm="CRC64NVME")


def interrupted(s3: Bucket, key: str, path: Path, after_bytes: int = 1_600_000) -> None:
    """A download that was stopped on its way; at least one part is done."""
    there = 0

    def stop(count: int) -> None:
        nonlocal there
        there += count
        if there >= after_bytes:
            raise Stopped("stop")

    with pytest.raises(Stopped):
        S3Store(s3.uri).download(key, path, progress=stop)
    assert not path.exists()


def test_a_later_try_fetches_only_what_is_missing(s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path) -> None:
    faulty.faults.append(Fault("status", match=r"(?s)^GET .*range: bytes=(0|500000)-"))
    interrupted(s3, key, tmp_path / "k", after_bytes=1_500_000)
    faulty.faults.clear()
    faulty.requests.clear()
    counts: list[int] = []
    S3Store(s3.uri).download(key, tmp_path / "k", progress=counts.append)
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert 2 <= len(faulty.seen("^GET ")) <= 4
    assert sum(counts) == SIZE
    assert list(tmp_path.iterdir()) == [tmp_path / "k"]


def test_a_partial_file_that_rotted_is_not_believed(s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path) -> None:
    interrupted(s3, key, tmp_path / "k")
    (partial,) = tmp_path.glob(".tmp-*.part")
    data = bytearray(partial.read_bytes())
    for index in range(0, SIZE, 500_000):
        data[index] ^= 1
    partial.write_bytes(data)
    faulty.requests.clear()
    S3Store(s3.uri).download(key, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert len(faulty.seen("^GET ")) == 5, "all parts again, in the first round"


@pytest.mark.parametrize("journal", ["", "{", '{"etag": 1}\n[0, 1]\n', "[]\n[0, 1]"])
def test_a_damaged_journal_only_costs_time(s3: Bucket, key: str, journal: str, tmp_path: Path) -> None:
    interrupted(s3, key, tmp_path / "k")
    (path,) = tmp_path.glob(".tmp-*.journal")
    path.write_text(journal)
    S3Store(s3.uri).download(key, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == CONTENT


def test_the_partial_of_an_older_object_is_thrown_away(s3: Bucket, key: str, tmp_path: Path) -> None:
    interrupted(s3, key, tmp_path / "k")
    new = os.urandom(SIZE)
    s3.client().put_object(Bucket=s3.name, Key=key, Body=new)
    S3Store(s3.uri).download(key, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == new
