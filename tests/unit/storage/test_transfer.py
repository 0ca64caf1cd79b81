"""Downloads from S3 through a network that does harm: the right bytes, or one clear error and nothing at the path."""

import os
import threading
from pathlib import Path

import pytest

from job.errors import HardwareError, Stopped, StorageError
from job.storage import s3_client, transfer
from job.storage.s3 import S3Store
from job.storage.store import NotFound, open_store
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


@pytest.fixture(params=["crc", "md5"])
def any_key(request: pytest.FixtureRequest, s3: Bucket) -> str:
    """Such an object, and one of which the store only has the MD5 in its ETag."""
    return put(s3, **({"ChecksumAlgorithm": "CRC64NVME"} if request.param == "crc" else {}))


@pytest.mark.parametrize("kind", OF_THE_BODY)
@pytest.mark.parametrize("after", [0, 3])
def test_a_fault_that_passes_ends_in_the_right_bytes(
    s3: Bucket, faulty: FaultyProxy, any_key: str, kind: str, after: int, tmp_path: Path
) -> None:
    faulty.faults.append(Fault(kind, match=r"(?s)^GET .*range: bytes=(?!0-)", times=1, after=after))
    counts: list[int] = []
    open_store(s3.uri).download(any_key, tmp_path / "k", progress=counts.append)
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert faulty.faults[0].times == 0, "the fault was met"
    assert sum(counts) == SIZE
    assert list(tmp_path.iterdir()) == [tmp_path / "k"]


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")])
def test_a_server_that_fails_for_a_while_is_asked_again(
    s3: Bucket, faulty: FaultyProxy, key: str, status: int, code: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", times=4, after=2, status=status, code=code))
    open_store(s3.uri).download(key, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", [*OF_THE_BODY, "status"])
def test_a_fault_that_stays_ends_in_one_clear_error(
    s3: Bucket, faulty: FaultyProxy, any_key: str, kind: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault(kind, after=1))
    with pytest.raises(StorageError) as caught:
        open_store(s3.uri, give_up_after_seconds=2).download(any_key, tmp_path / "k")
    assert f"{s3.uri}/{any_key}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("kind", ["flip", "short", "truncate"])
@pytest.mark.parametrize("times", [1, 10**9])
def test_a_small_object_in_one_answer_is_checked_as_well(
    s3: Bucket,
    faulty: FaultyProxy,
    any_key: str,
    kind: str,
    times: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 1 << 24)
    faulty.faults.append(Fault(kind, times=times))
    store = open_store(s3.uri, give_up_after_seconds=2)
    if times == 1:
        store.download(any_key, tmp_path / "k")
        assert (tmp_path / "k").read_bytes() == CONTENT
    else:
        with pytest.raises(StorageError):
            store.download(any_key, tmp_path / "k")
        assert not (tmp_path / "k").exists()
    assert not faulty.seen(r"(?s)^GET .*range: ")


def test_an_object_that_is_replaced_while_it_is_read_is_read_anew(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path
) -> None:
    new = os.urandom(SIZE - 1)

    def replace(count: int) -> None:
        s3.client().put_object(Bucket=s3.name, Key=key, Body=new)

    faulty.faults.append(Fault("status", match=r"(?s)^GET .*range: bytes=2000000", times=2))
    open_store(s3.uri).download(key, tmp_path / "k", progress=replace)
    assert (tmp_path / "k").read_bytes() == new


def test_another_etag_in_mid_download_never_mixes_two_objects(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("etag", after=2))
    with pytest.raises(StorageError, match="replaced while it was read"):
        open_store(s3.uri, give_up_after_seconds=1).download(key, tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_two_downloads_to_one_path_at_once_do_not_harm_each_other(s3: Bucket, key: str, tmp_path: Path) -> None:
    stores = [S3Store(s3.uri) for _ in range(3)]
    entries = []
    threads = [
        threading.Thread(target=lambda store=store: entries.append(store.download(key, tmp_path / "k")))
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entries) == 3
    assert (tmp_path / "k").read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "k"]


def test_a_connection_that_says_nothing_is_given_up_and_opened_anew(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_SECONDS", 1)
    faulty.faults.append(Fault("stall", times=2))
    S3Store(s3.uri).download(key, tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == CONTENT


def test_a_stop_is_heard_while_the_network_says_nothing(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("stall"))
    waited = 0

    def stop(count: int) -> None:
        nonlocal waited
        waited += count == 0
        if waited == 2:
            raise Stopped("stop")

    with pytest.raises(Stopped):
        S3Store(s3.uri).download(key, tmp_path / "k", progress=stop)
    assert not (tmp_path / "k").exists()


def test_a_full_disk_is_said_and_leaves_nothing_at_the_path(
    s3: Bucket, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HardwareError, match="no space left"):
        open_store(s3.uri).download(key, tmp_path / "k")
    assert not (tmp_path / "k").exists()


def test_an_object_that_vanishes_while_it_is_read_is_said_to_be_missing(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", status=404, code="NoSuchKey"))
    with pytest.raises(NotFound):
        open_store(s3.uri).download(key, tmp_path / "k")


def test_refused_credentials_in_mid_download_end_it_at_once(
    s3: Bucket, faulty: FaultyProxy, key: str, tmp_path: Path
) -> None:
    faulty.faults.append(Fault("status", status=403, code="AccessDenied", after=2))
    with pytest.raises(StorageError, match="check the credentials"):
        open_store(s3.uri).download(key, tmp_path / "k")
    assert len(faulty.seen("^GET ")) <= 2 + transfer.CONNECTIONS
