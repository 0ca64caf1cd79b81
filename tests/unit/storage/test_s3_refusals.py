"""One clear line for each way an S3 store refuses or cannot be reached, whatever was asked of it."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from job.errors import ConfigError, ExitCode, JobError, StorageError
from job.storage.s3 import S3Store
from job.storage.store import ObjectStore, Unreachable, open_store
from tests.servers import Bucket, Fault, FaultyProxy, free_port


@dataclass(frozen=True)
class Options:
    profile: str | None = None
    endpoint: str | None = None
    sse: str | None = None


OPERATIONS = ["get", "put", "put_if_absent", "stat", "list", "delete", "download", "upload"]


def do(store: ObjectStore, operation: str, folder: Path) -> object:
    source = folder / "source"
    source.write_bytes(b"data")
    return {
        "get": lambda: store.get("k"),
        "put": lambda: store.put("k", b"data"),
        "put_if_absent": lambda: store.put_if_absent("k", b"data"),
        "stat": lambda: store.stat("k"),
        "list": lambda: store.list("k"),
        "delete": lambda: store.delete(["k"]),
        "download": lambda: store.download("k", folder / "target"),
        "upload": lambda: store.upload(source, "k"),
    }[operation]()


def one_line(error: JobError) -> str:
    assert "\n" not in str(error)
    return str(error)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_missing_bucket_is_said_with_name_and_endpoint(s3: Bucket, operation: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        do(S3Store("s3://no-such-bucket/run"), operation, tmp_path)
    assert caught.value.exit_code == ExitCode.STORAGE
    assert f"bucket no-such-bucket does not exist at {s3.endpoint}" in one_line(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_refused_credentials_are_said_with_what_to_check(
    s3: Bucket, faulty: FaultyProxy, operation: str, tmp_path: Path
) -> None:
    S3Store(s3.uri).put("k", b"data")
    faulty.faults.append(Fault("status", match="", status=403, code="SignatureDoesNotMatch"))
    with pytest.raises(StorageError, match=r"refused by .*check the credentials") as caught:
        do(open_store(s3.uri), operation, tmp_path)
    assert s3.uri in one_line(caught.value)
    assert not (tmp_path / "target").exists()


def test_an_expired_token_is_a_refusal_though_its_status_is_400(s3: Bucket, faulty: FaultyProxy) -> None:
    faulty.faults.append(Fault("status", match="", status=400, code="ExpiredToken"))
    with pytest.raises(StorageError, match=r"ExpiredToken.*check the credentials"):
        open_store(s3.uri).get("k")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_missing_credentials_are_said(
    s3: Bucket, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"no credentials .*AWS_ACCESS_KEY_ID") as caught:
        do(open_store(s3.uri), operation, tmp_path)
    one_line(caught.value)


def test_a_missing_profile_is_said(s3: Bucket) -> None:
    with pytest.raises(StorageError, match=r"nobody.*storage.data.profile"):
        open_store("s3://data/x", {"data": Options(profile="nobody")})


def test_an_endpoint_that_is_no_url_is_a_mistake_in_the_config(s3: Bucket) -> None:
    with pytest.raises(ConfigError, match=r"storage\.data\.endpoint"):
        open_store("s3://data/x", {"data": Options(endpoint="minio")})


def test_a_bucket_name_that_cannot_be_is_a_mistake_in_the_config(s3: Bucket) -> None:
    with pytest.raises(ConfigError, match="s3://My Bucket!"):
        S3Store("s3://My Bucket!").get("k")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_endpoint_nobody_listens_at_is_unreachable(
    s3: Bucket, operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match=r"cannot be reached.*gave up after \d+ s and \d+ tr") as caught:
        do(open_store(s3.uri, give_up_after_seconds=0.1), operation, tmp_path)
    one_line(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ["status", "reset"])
def test_a_store_that_is_away_for_a_moment_is_waited_for(
    s3: Bucket, faulty: FaultyProxy, operation: str, kind: str, tmp_path: Path
) -> None:
    S3Store(s3.uri).put("k", b"data")
    faulty.requests.clear()
    faulty.faults.append(Fault(kind, match="", times=1))
    do(S3Store(s3.uri), operation, tmp_path)
    assert faulty.faults[0].times == 0
