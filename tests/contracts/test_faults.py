"""Every operation against everything that can happen on its way: correct bytes or one clear error, and then it works.

Passing faults are ridden out; of those that stay, the error is the storage's (74), and nothing damaged is believed.
Left out: a flipped byte in a listing, which no store gives a checksum of; there TLS is what protects it.
"""

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from botocore.retries.standard import ExponentialBackoff

from job.errors import ExitCode, JobError, StorageError
from job.storage import s3, s3_client, s3_write, transfer
from job.storage.retry import RetryingStore
from job.storage.s3 import S3Store
from job.storage.store import ObjectStore
from tests.servers import KEYS, Bucket, Fault, FaultyProxy, faulty_proxy

SMALL, OTHER = b'{"a": "record"}' * 20, b'{"another": "record"}' * 30
LARGE = os.urandom(6 << 20)  # two parts up
DOWN = os.urandom(1_500_000)  # three parts down
FOREVER = 10**9


@dataclass(frozen=True)
class Network:
    """A bucket behind a faulty proxy, and files of the test's own."""

    bucket: Bucket
    proxy: FaultyProxy
    folder: Path

    def store(self, seconds: float, prefix: str) -> ObjectStore:
        """Pauses between tries take no time, but are counted: each call has `seconds` of them, a transfer real ones."""
        now = 0.0

        def sleep(pause: float) -> None:
            nonlocal now
            now += pause

        return RetryingStore(S3Store(f"{self.bucket.uri}/{prefix}", None, seconds), seconds, sleep, lambda: now)

    def behind(self, key: str) -> bytes:
        data: bytes = self.bucket.client().get_object(Bucket=self.bucket.name, Key=key)["Body"].read()
        return data

    def keys(self, prefix: str) -> list[str]:
        page = self.bucket.client().list_objects_v2(Bucket=self.bucket.name, Prefix=prefix)
        return [item["Key"] for item in page.get("Contents", [])]

    def place(self, key: str, data: bytes) -> None:
        self.bucket.client().put_object(Bucket=self.bucket.name, Key=key, Body=data, ChecksumAlgorithm="CRC64NVME")


@pytest.fixture(scope="module")
def network(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch, faulty_proxy(s3_endpoint) as proxy:
        for name in os.environ:
            if name.startswith("AWS_") or name.lower().endswith("_proxy"):
                patch.delenv(name)
        env = {**KEYS, "AWS_ENDPOINT_URL": proxy.endpoint, "AWS_CONFIG_FILE": str(folder / "none")}
        for name, value in env.items():
            patch.setenv(name, value)
        patch.setattr(s3_client, "READ_TIMEOUT_SECONDS", 1)
        patch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0)
        patch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.01)
        patch.setattr(transfer, "PART_BYTES", 500_000)
        patch.setattr(s3_write, "PART_BYTES", 5 << 20)
        patch.setattr(s3, "LIST_AT_ONCE", 2)
        patch.setattr(s3, "make_clients", functools.cache(s3.make_clients))
        bucket = Bucket(s3_endpoint, "faults", env)
        bucket.client().create_bucket(Bucket=bucket.name)
        (folder / "small").write_bytes(SMALL)
        (folder / "large").write_bytes(LARGE)
        yield Network(bucket, proxy, folder)


@pytest.fixture
def calm(network: Network) -> Iterator[Network]:
    yield network
    network.proxy.faults.clear()
    network.proxy.requests.clear()
    network.proxy.strict = False


# ---- operations: each asserts that what it got, or what is stored after it, is right


def get(network: Network, store: ObjectStore, at: str) -> None:
    assert store.get("k") == SMALL


def put(network: Network, store: ObjectStore, at: str) -> None:
    store.put("k", OTHER)
    assert network.behind(f"{at}/k") == OTHER


def put_if_absent(network: Network, store: ObjectStore, at: str) -> None:
    assert store.put_if_absent("claim", OTHER) is True
    assert network.behind(f"{at}/claim") == OTHER


def stat(network: Network, store: ObjectStore, at: str) -> None:
    assert store.stat("k").size == len(SMALL)


def pages(network: Network, store: ObjectStore, at: str) -> None:
    assert [entry.key for entry in store.list("l/")] == ["l/1", "l/2", "l/3"]


def delete(network: Network, store: ObjectStore, at: str) -> None:
    store.delete(["l/1", "l/3"])
    assert network.keys(f"{at}/l/") == [f"{at}/l/2"]


def download(name: str, content: bytes) -> "Call":
    def call(network: Network, store: ObjectStore, at: str) -> None:
        target = network.folder / at / "target"
        target.unlink(missing_ok=True)
        try:
            entry = store.download(name, target)
        except JobError:
            assert not target.exists()
            raise
        assert target.read_bytes() == content
        assert entry.crc64nvme is not None

    return call


def upload(name: str, content: bytes) -> "Call":
    def call(network: Network, store: ObjectStore, at: str) -> None:
        counts: list[int] = []
        store.upload(network.folder / name, "up", counts.append)
        assert network.behind(f"{at}/up") == content
        assert sum(counts) == len(content)

    return call


Call = Callable[[Network, ObjectStore, str], None]

KINDS = {
    "403": Fault("status", status=403, code="AccessDenied"),
    "404": Fault("status", status=404, code="NoSuchUpload"),
    "409": Fault("status", status=409, code="ConditionalRequestConflict"),
    "500": Fault("status", status=500, code="InternalError"),
    "503": Fault("status", status=503, code="SlowDown"),
    "200 with an error": Fault("status", status=200, code="InternalError"),
    "slow": Fault("slow", bytes_per_second=2_000_000),
    "slow_upload": Fault("slow_upload", bytes_per_second=8_000_000),
}
ON_THE_WAY = ["reset", "lost", "silent", "500", "503"]
OF_A_BODY = ["truncate", "short", "flip", "stall", "slow"]
OF_A_LISTING = ["truncate", "short", "stall"]
OF_A_RANGE = [*OF_A_BODY, "ignore_range", "wrong_range", "etag"]
OF_AN_UPLOAD = ["409", "cut_upload", "half_upload", "half_upload, refused", "flip_upload", "flip_upload, refused"]

TABLE: dict[str, tuple[Call, dict[str, list[str]]]] = {
    "get": (get, {"^GET ": OF_A_BODY}),
    "put": (put, {"^PUT ": OF_AN_UPLOAD}),
    "put_if_absent": (put_if_absent, {"^PUT ": OF_AN_UPLOAD}),
    "stat": (stat, {"^HEAD ": []}),
    "list": (pages, {"list-type(?!.*continuation)": OF_A_LISTING, "continuation": OF_A_LISTING}),
    "delete": (delete, {r"^POST .*\?delete": ["409", *OF_A_BODY, "200 with an error"]}),
    "download": (download("k", SMALL), {"^HEAD ": [], "^GET ": OF_A_BODY}),
    "download in parts": (download("down", DOWN), {"(?s)^GET .*range: bytes=500000-": OF_A_RANGE}),
    "upload": (upload("small", SMALL), {"^PUT ": OF_AN_UPLOAD, "^HEAD ": []}),
    "upload in parts": (
        upload("large", LARGE),
        {
            r"^POST .*\?uploads": OF_A_BODY,
            "^PUT .*partNumber=1": [*OF_AN_UPLOAD, "slow_upload"],
            "^PUT .*partNumber=2": OF_AN_UPLOAD,
            r"^POST .*\?uploadId": ["409", *OF_A_BODY, "200 with an error"],
            "^HEAD ": [],
        },
    ),
}
PASSING = [
    pytest.param(call, match, kind, id=f"{name}-{match}-{kind}")
    for name, (call, phases) in TABLE.items()
    for match, kinds in phases.items()
    for kind in [*ON_THE_WAY, *kinds]
]
ONLY_COSTS_TIME = {"409", "cut_upload", "stall", "slow", "slow_upload"}  # or is another of those that stay
STAYING = [
    pytest.param(call, match, kind, id=f"{name}-{match}-{kind}")
    for name, (call, phases) in TABLE.items()
    for number, (match, kinds) in enumerate(phases.items())
    for kind in ["403", *(["reset", "lost", "503"] if number == 0 else []), *kinds]
    if kind not in ONLY_COSTS_TIME
]


def begin(network: Network, kind: str, match: str, times: int) -> Fault:
    name, _, refused = kind.partition(", ")
    fault = replace(KINDS.get(name, Fault(name)), match=match, times=times)
    network.proxy.strict = bool(refused)
    network.proxy.faults.append(fault)
    return fault


@pytest.fixture
def at(calm: Network, request: pytest.FixtureRequest) -> str:
    """The prefix of a test's own objects."""
    name = f"t{abs(hash(request.node.name)):x}"
    calm.place(f"{name}/k", SMALL)
    if "download in parts" in request.node.name:
        calm.place(f"{name}/down", DOWN)
    if "list-" in request.node.name or "delete-" in request.node.name:
        for number in (1, 2, 3):
            calm.place(f"{name}/l/{number}", b"")
    return name


@pytest.mark.parametrize(("call", "match", "kind"), PASSING)
def test_a_fault_that_passes_is_ridden_out(calm: Network, at: str, call: Call, match: str, kind: str) -> None:
    fault = begin(calm, kind, match, times=4 if kind in ("reset", "503") else 1)
    call(calm, calm.store(50, at), at)
    assert fault.times == 0, "the fault was met"


@pytest.mark.parametrize(("call", "match", "kind"), STAYING)
def test_a_fault_that_stays_corrupts_nothing_and_then_all_works(
    calm: Network, at: str, call: Call, match: str, kind: str
) -> None:
    begin(calm, kind, match, FOREVER)
    try:
        call(calm, calm.store(1, at), at)
    except StorageError as error:
        assert error.exit_code == ExitCode.STORAGE
        assert calm.bucket.name in str(error) and "\n" not in str(error)
        assert (kind == "403") == ("check the credentials" in str(error))
    else:
        assert kind not in ("403", "reset", "503"), "nobody can have answered"
    calm.proxy.faults.clear()
    calm.proxy.strict = False
    call(calm, calm.store(50, at), at)


@pytest.mark.parametrize("kind", ["lost", "silent"])
def test_a_claim_whose_answer_was_lost_is_its_writers_and_nobody_elses(calm: Network, at: str, kind: str) -> None:
    begin(calm, kind, "^PUT .*/claim", times=3)
    assert calm.store(50, at).put_if_absent("claim", b"first") is True
    assert calm.store(50, at).put_if_absent("claim", b"second") is False
    assert calm.behind(f"{at}/claim") == b"first"


@pytest.mark.parametrize("kind", ["reset", "503", "409"])
def test_a_claim_that_another_made_while_ours_was_on_its_way_is_the_others(calm: Network, at: str, kind: str) -> None:
    fault = begin(calm, kind, "^PUT .*/claim", times=1)
    late = calm.store(50, at)

    def overtake(request: str) -> Fault | None:
        found = FaultyProxy.take(calm.proxy, request)
        if found is fault:
            calm.place(f"{at}/claim", b"the other's")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calm.proxy, "take", overtake)
        assert late.put_if_absent("claim", b"ours") is False
    assert calm.behind(f"{at}/claim") == b"the other's"


def test_a_multipart_upload_whose_end_was_not_acknowledged_is_found_in_the_store(calm: Network, at: str) -> None:
    """Stores that forget an upload once it is complete answer the repeated request like that."""
    begin(calm, "lost", r"^POST .*\?uploadId", times=1)
    forgotten = begin(calm, "404", r"^POST .*\?uploadId", times=1)
    upload("large", LARGE)(calm, calm.store(50, at), at)
    assert forgotten.times == 0
    assert len(calm.proxy.seen("^PUT .*partNumber=1")) == 1, "nothing is sent twice"


def test_a_multipart_upload_that_was_taken_away_begins_anew(calm: Network, at: str) -> None:
    begin(calm, "404", "^PUT .*partNumber=2", times=1)
    upload("large", LARGE)(calm, calm.store(50, at), at)
    assert len(calm.proxy.seen("^PUT .*partNumber=1")) == 2
