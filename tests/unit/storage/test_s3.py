"""The S3 store's own promises: lost answers, endpoints that know less than S3, encryption, certificates and proxies."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from job.errors import StorageError
from job.storage.s3 import S3Store
from job.storage.s3_client import encryption
from job.storage.store import NotFound, Transient, open_store
from tests.certificates import private_ca
from tests.servers import Bucket, Fault, FaultyProxy, faulty_proxy, free_port


@dataclass(frozen=True)
class Options:
    profile: str | None = None
    endpoint: str | None = None
    sse: str | None = None


def test_a_claim_whose_answer_was_lost_is_known_as_ones_own(s3: Bucket, faulty: FaultyProxy) -> None:
    faulty.faults.append(Fault("lost", match="^PUT ", times=1))
    assert S3Store(s3.uri).put_if_absent("claims/1", b"nonce a") is True
    assert len(faulty.seen("^PUT ")) == 2
    assert S3Store(s3.uri).put_if_absent("claims/1", b"nonce b") is False


def test_a_conflict_of_two_writers_is_tried_again(s3: Bucket, faulty: FaultyProxy) -> None:
    faulty.faults.append(Fault("status", match="^PUT ", times=1, status=409, code="ConditionalRequestConflict"))
    with pytest.raises(Transient, match="409"):
        S3Store(s3.uri).put_if_absent("k", b"1")
    faulty.faults[0].times = 1
    assert open_store(s3.uri).put_if_absent("k", b"1") is True


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_store_without_conditional_writes_is_looked_at_before_and_after(
    s3: Bucket, faulty: FaultyProxy, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.faults.append(Fault("status", match=r"(?s)^PUT .*if-none-match: \*", status=status, code=code))
    store = S3Store(s3.uri)
    with caplog.at_level(logging.WARNING):
        assert store.put_if_absent("k", b"1") is True
        refused = len(faulty.seen("if-none-match"))
        assert store.put_if_absent("k", b"2") is False
        assert store.put_if_absent("k2", b"2") is True
    assert store.get("k") == b"1"
    assert len(faulty.seen("if-none-match")) == refused, "it is remembered"
    assert len([record for record in caplog.records if "no conditional writes" in record.message]) == 1


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidRequest")])
@pytest.mark.parametrize("size", [10, 9 << 20])
def test_a_store_that_refuses_checksums_gets_the_bytes_without(
    s3: Bucket,
    faulty: FaultyProxy,
    status: int,
    code: str,
    size: int,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("job.storage.s3_write.PART_BYTES", 5 << 20)
    faulty.faults.append(Fault("status", match=r"(?s)^P.*x-amz-(sdk-)?checksum", status=status, code=code))
    store = S3Store(s3.uri)
    (tmp_path / "f").write_bytes(os.urandom(size))
    counts: list[int] = []
    with caplog.at_level(logging.WARNING):
        store.upload(tmp_path / "f", "f", progress=counts.append)
        store.put("k", b"1")
    assert store.get("f") == (tmp_path / "f").read_bytes()
    assert store.get("k") == b"1"
    assert sum(counts) == size
    assert len([record for record in caplog.records if "checksums" in record.message]) == 1


@pytest.mark.parametrize("size", [10, 9 << 20])
def test_what_is_written_has_its_checksum_in_the_store(
    s3: Bucket, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.storage.s3_write.PART_BYTES", 5 << 20)
    (tmp_path / "f").write_bytes(os.urandom(size))
    store = S3Store(s3.uri)
    store.upload(tmp_path / "f", "f")
    store.put("k", b"1")
    assert store.stat("f").crc64nvme == store.download("f", tmp_path / "g").crc64nvme
    assert store.stat("k").crc64nvme


def test_an_upload_that_is_not_whole_in_the_store_is_an_error(s3: Bucket, faulty: FaultyProxy, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    faulty.faults.append(Fault("half_upload", match="^PUT "))
    with pytest.raises(StorageError, match="500 bytes after writing 1000"):
        S3Store(s3.uri).upload(tmp_path / "f", "f")


@pytest.mark.parametrize("checksum", [{}, {"ChecksumAlgorithm": "CRC64NVME"}])
@pytest.mark.parametrize("kind", ["flip", "short"])
def test_a_small_record_is_never_read_damaged(
    s3: Bucket, faulty: FaultyProxy, checksum: dict[str, str], kind: str
) -> None:
    s3.client().put_object(Bucket=s3.name, Key="k", Body=b"a record" * 100, **checksum)
    faulty.faults.append(Fault(kind, times=2))
    assert S3Store(s3.uri).get("k") == b"a record" * 100
    faulty.faults[0].times = 10**9
    with pytest.raises(StorageError, match="damages what it carries"):
        S3Store(s3.uri).get("k")


def test_a_store_that_does_not_delete_many_at_once_is_asked_one_by_one(s3: Bucket, faulty: FaultyProxy) -> None:
    store = S3Store(s3.uri)
    for key in "abc":
        store.put(key, b"1")
    faulty.faults.append(Fault("status", match=r"^POST .*\?delete", status=501, code="NotImplemented"))
    store.delete(["a", "c", "none"])
    assert [entry.key for entry in store.list("")] == ["b"]


@pytest.mark.parametrize(
    ("sse", "headers"),
    [
        ("AES256", ["x-amz-server-side-encryption: AES256"]),
        ("aws:kms", ["x-amz-server-side-encryption: aws:kms"]),
        (
            "aws:kms:arn:aws:kms:us-east-1:1:key/k",
            [
                "x-amz-server-side-encryption: aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id: arn:aws:kms:us-east-1:1:key/k",
            ],
        ),
    ],
)
def test_encryption_is_asked_for_with_every_write(
    s3: Bucket, faulty: FaultyProxy, sse: str, headers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("job.storage.s3_write.PART_BYTES", 5 << 20)
    store = open_store(s3.uri, {s3.name: Options(sse=sse)})
    (tmp_path / "small").write_bytes(b"1")
    (tmp_path / "large").write_bytes(bytes(6 << 20))
    store.put("a", b"1")
    store.put_if_absent("b", b"1")
    store.upload(tmp_path / "small", "c")
    store.upload(tmp_path / "large", "d")
    first = [*faulty.seen(r"^PUT /[^?]*\n"), *faulty.seen(r"^POST .*\?uploads")]
    assert len(first) == 4
    for request in first:
        assert set(headers) <= set(request.split("\n"))
    assert store.get("d") == bytes(6 << 20)


def test_the_key_of_the_encryption_may_have_a_field_of_its_own() -> None:
    @dataclass(frozen=True)
    class WithKey(Options):
        sse_kms_key_id: str | None = None

    assert encryption(WithKey(sse="aws:kms:dsse", sse_kms_key_id="K")) == {
        "ServerSideEncryption": "aws:kms:dsse",
        "SSEKMSKeyId": "K",
    }
    assert encryption(Options()) == {} == encryption(None)


def test_a_bucket_may_have_an_endpoint_of_its_own(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    store = open_store(f"{s3.uri}/x", {s3.name: Options(endpoint=s3.endpoint)}, give_up_after_seconds=0)
    store.put("k", b"1")
    assert store.get("k") == b"1"


def test_a_profile_brings_its_endpoint_and_keys(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config = f"[profile lab]\nendpoint_url = {s3.endpoint}\naws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "no-aws-config").write_text(config)
    store = open_store(s3.uri, {s3.name: Options(profile="lab")})
    store.put("k", b"1")
    assert store.get("k") == b"1"


def test_a_private_ca_is_trusted_on_both_planes_when_named(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, certificate = private_ca(tmp_path)
    (tmp_path / "f").write_bytes(os.urandom(3_000_000))
    with faulty_proxy(s3.endpoint, certificate) as https:
        monkeypatch.setenv("AWS_ENDPOINT_URL", https.endpoint)
        with pytest.raises(StorageError, match="AWS_CA_BUNDLE"):
            open_store(s3.uri).put("k", b"1")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ca))
        store = open_store(s3.uri)
        assert store.put_if_absent("k", b"1")
        store.upload(tmp_path / "f", "f")
        store.download("f", tmp_path / "g")
        assert https.seen("^GET ")
    assert (tmp_path / "g").read_bytes() == (tmp_path / "f").read_bytes()


def test_a_proxy_from_the_environment_carries_both_planes(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint)
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.invalid")  # a name that only the proxy can resolve
        store = open_store(s3.uri)
        store.put("k", b"through the proxy")
        store.download("k", tmp_path / "k")
        assert len(proxy.seen("(?s)^GET .*host: store.invalid")) == 1
    assert (tmp_path / "k").read_bytes() == b"through the proxy"


def test_keys_outside_the_prefix_are_not_seen(s3: Bucket) -> None:
    S3Store(f"{s3.uri}/ab").put("k", b"1")
    S3Store(s3.uri).put("a", b"")
    assert S3Store(f"{s3.uri}/a").list("") == []
    with pytest.raises(NotFound):
        S3Store(f"{s3.uri}/a").get("k")


def test_objects_that_stand_for_folders_are_not_listed(s3: Bucket) -> None:
    s3.client().put_object(Bucket=s3.name, Key="run/", Body=b"")
    s3.client().put_object(Bucket=s3.name, Key="run/sub/", Body=b"")
    assert S3Store(f"{s3.uri}/run").list("") == []


@pytest.mark.parametrize("operation", ["get", "stat", "download"])
def test_what_is_missing_is_told_from_what_is_refused_where_only_the_runs_prefix_may_be_listed(
    s3: Bucket, faulty: FaultyProxy, operation: str, tmp_path: Path
) -> None:
    """AWS answers 403 for a missing object to whoever may not list the whole bucket."""
    store = S3Store(f"{s3.uri}/run")
    store.put("k2", b"1")
    calls = {"get": store.get, "stat": store.stat, "download": lambda key: store.download(key, tmp_path / "down")}
    faulty.faults.append(Fault("hide", match=""))
    with pytest.raises(NotFound, match=f"{s3.uri}/run/k does not exist"):
        calls[operation]("k")
    faulty.faults = [Fault("status", match="^(GET|HEAD) .*/run/k", status=403, code="AccessDenied")]
    with pytest.raises(StorageError, match="refused") as caught:
        calls[operation]("k2")
    assert not isinstance(caught.value, NotFound), "it is there, and may not be read"
    faulty.faults = [Fault("status", match="list-type", status=403, code="AccessDenied"), Fault("hide", match="")]
    with pytest.raises(StorageError, match="refused") as caught:
        calls[operation]("k")
    assert not isinstance(caught.value, NotFound), "nobody knows"


def test_a_damaged_body_that_the_store_refused_does_not_cost_the_checksums(
    s3: Bucket, faulty: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(s3.uri)
    faulty.strict = True
    faulty.faults.append(Fault("flip_upload", match="^PUT ", times=1))
    with caplog.at_level(logging.WARNING):
        store.put("k", b"a record" * 10)
    assert "XAmzContentSHA256Mismatch" in caplog.text and "without" not in caplog.text
    assert store.stat("k").crc64nvme


@pytest.mark.parametrize(("code", "kind"), [("AccessDenied", StorageError), ("SlowDown", Transient)])
def test_a_key_that_is_not_deleted_is_an_error_though_the_answer_as_a_whole_is_not(
    s3: Bucket, faulty: FaultyProxy, code: str, kind: type[StorageError]
) -> None:
    body = f"<DeleteResult><Error><Key>k</Key><Code>{code}</Code><Message>no</Message></Error></DeleteResult>"
    faulty.faults.append(Fault("status", match=r"^POST .*\?delete", status=200, body=body))
    with pytest.raises(StorageError, match=rf"{code}: no.*check s3:DeleteObject") as caught:
        S3Store(s3.uri).delete(["k"])
    assert type(caught.value) is kind


@pytest.mark.parametrize("size", ["1x", "<a/>"])
def test_an_answer_that_makes_no_sense_is_asked_for_again(s3: Bucket, faulty: FaultyProxy, size: str) -> None:
    store = open_store(s3.uri, give_up_after_seconds=3)
    store.put("k", b"1")
    item = f"<Contents><Key>k</Key><ETag>e</ETag><Size>{size}</Size></Contents>"
    faulty.faults.append(Fault("status", status=200, body=f"<ListBucketResult>{item}</ListBucketResult>", times=1))
    assert [entry.size for entry in store.list("")] == [1]
    faulty.faults[0].times = 10**9
    with pytest.raises(StorageError, match="makes no sense"):
        store.list("")
