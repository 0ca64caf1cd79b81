"""What every store promises, asked of folder, memory and S3 (a real server process), each also behind retries."""

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import Stopped, StorageError
from job.storage.folder import FolderStore
from job.storage.memory import MemoryStore
from job.storage.retry import RetryingStore
from job.storage.s3 import S3Store
from job.storage.store import Entry, NotFound, ObjectStore
from tests.servers import Bucket

ODD_KEYS = [
    "a",
    "a/b/c.json",
    "with space/and+plus",
    "100%/%20",
    "微调测试/ü.txt",
    "q?x=1&y=2#z;=@:,!*'()",
    "-dash",
    "a.b/..c",
]


@pytest.fixture(params=["folder", "memory", "s3", "folder-retrying", "memory-retrying", "s3-retrying"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    kind, _, wrapped = request.param.partition("-")
    inner: ObjectStore
    if kind == "folder":
        inner = FolderStore(tmp_path / "store")
    elif kind == "memory":
        inner = MemoryStore("test")
    else:
        bucket: Bucket = request.getfixturevalue("s3")
        inner = S3Store(f"{bucket.uri}/some/prefix")
    return RetryingStore(inner) if wrapped else inner


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_object_comes_back_as_it_was_written_under_any_key(store: ObjectStore, key: str, tmp_path: Path) -> None:
    store.put(key, b"content")
    assert store.get(key) == b"content"
    assert [entry.key for entry in store.list("")] == [key]
    assert store.stat(key).size == 7
    assert store.download(key, tmp_path / "down").key == key
    assert (tmp_path / "down").read_bytes() == b"content"
    store.delete([key])
    assert store.list("") == []


def test_a_part_of_an_object_is_read_and_no_more_than_it_has(store: ObjectStore) -> None:
    store.put("k", bytes(range(100)))
    assert store.read("k", 0, 10) == bytes(range(10))
    assert store.read("k", 90, 50) == bytes(range(90, 100))
    assert store.read("k", 100, 8) == store.read("k", 500, 8) == b""
    with pytest.raises(NotFound):
        store.read("other", 0, 10)


@pytest.mark.parametrize("data", [b"", b"\0", b"\r\n\0\xff" * 1000])
def test_bytes_are_kept_as_they_are(store: ObjectStore, data: bytes) -> None:
    store.put("k", data)
    assert store.get("k") == data
    assert store.stat("k").size == len(data)


def test_a_second_put_replaces_the_content_and_changes_the_etag(store: ObjectStore) -> None:
    store.put("k", b"one")
    first = store.stat("k")
    store.put("k", b"two")
    assert store.get("k") == b"two"
    assert store.stat("k").etag != first.etag


def test_etags_stay_while_the_content_does_and_are_the_same_in_a_listing(store: ObjectStore) -> None:
    store.put("k", b"one")
    assert store.stat("k").etag == store.stat("k").etag == store.list("")[0].etag


def test_put_if_absent_writes_once_and_leaves_what_is_there(store: ObjectStore) -> None:
    assert store.put_if_absent("claims/1", b"mine") is True
    assert store.put_if_absent("claims/1", b"yours") is False
    assert store.get("claims/1") == b"mine"


def test_put_if_absent_takes_its_own_bytes_for_its_own_first_try(store: ObjectStore) -> None:
    assert store.put_if_absent("claims/1", b"mine") is True
    assert store.put_if_absent("claims/1", b"mine") is True


def test_of_eight_writers_at_once_exactly_one_wins(store: ObjectStore) -> None:
    for turn in range(5):
        won: list[bytes] = []
        start = threading.Barrier(8)

        def claim(data: bytes, key: str, start: threading.Barrier = start, won: list[bytes] = won) -> None:
            start.wait()
            if store.put_if_absent(key, data):
                won.append(data)

        writers = [threading.Thread(target=claim, args=(b"writer %d" % n, f"claims/{turn}")) for n in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert won == [store.get(f"claims/{turn}")]


def test_a_listing_has_what_starts_with_the_prefix_sorted(store: ObjectStore) -> None:
    for key in ["b/2", "a/x", "b/1", "b/c/3", "bc/4", "d"]:
        store.put(key, key.encode())
    assert [entry.key for entry in store.list("b/")] == ["b/1", "b/2", "b/c/3"]
    assert [entry.key for entry in store.list("b")] == ["b/1", "b/2", "b/c/3", "bc/4"]
    assert [entry.key for entry in store.list("b/c/")] == ["b/c/3"]
    assert [entry.key for entry in store.list("")] == ["a/x", "b/1", "b/2", "b/c/3", "bc/4", "d"]
    assert [entry.size for entry in store.list("b/c/")] == [5]


def test_a_listing_of_nothing_is_empty(store: ObjectStore) -> None:
    assert store.list("") == store.list("no/such/") == store.list("no") == []


def test_a_listing_has_all_pages(store: ObjectStore) -> None:
    keys = [f"many/{number:04d}" for number in range(1005)]
    threads = [
        threading.Thread(target=lambda part: [store.put(key, b"") for key in part], args=(keys[n::4],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.key for entry in store.list("many/")] == keys
    store.delete(keys)
    assert store.list("many/") == []


def test_deleting_what_is_not_there_is_no_error(store: ObjectStore) -> None:
    store.put("a/k", b"1")
    store.delete(["a/k", "a/none", "none", "a/k"])
    store.delete(["a/k"])
    store.delete([])
    assert store.list("") == []


def test_what_is_not_there_is_said_with_its_uri(store: ObjectStore, tmp_path: Path) -> None:
    store.put("other", b"")
    target = tmp_path / "target" / "file"
    calls: list[Callable[[], object]] = [
        lambda: store.get("no/such"),
        lambda: store.stat("no/such"),
        lambda: store.download("no/such", target),
    ]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            call()
        assert f"{store.uri}/no/such" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not target.exists()


@pytest.mark.parametrize("size", [0, 1, 20 << 20])
def test_a_file_goes_up_and_comes_down_the_same(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "folder" / "target"
    source.write_bytes(os.urandom(size))
    up: list[int] = []
    down: list[int] = []
    store.upload(source, "big/file", progress=up.append)
    entry = store.download("big/file", target, progress=down.append)
    assert digest(target) == digest(source)
    assert sum(up) == sum(down) == size
    assert entry.size == size
    assert entry.crc64nvme is not None
    assert store.stat("big/file").etag == entry.etag
    assert [path.name for path in target.parent.iterdir()] == ["target"], "nothing is left beside it"


def test_a_download_replaces_a_file_only_when_it_is_whole(store: ObjectStore, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    store.put("k", b"x" * 3_000_000)

    def stop(count: int) -> None:
        raise Stopped("stop")

    with pytest.raises(Stopped):
        store.download("k", target, progress=stop)
    assert target.read_bytes() == b"old"
    store.download("k", target)
    assert target.read_bytes() == b"x" * 3_000_000


def test_a_download_of_another_object_than_expected_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    store.put("k", b"one")
    expected = store.stat("k")
    assert store.download("k", tmp_path / "k", expect=expected).size == 3
    store.put("k", b"two!")
    with pytest.raises(StorageError, match="replaced"):
        store.download("k", tmp_path / "second", expect=expected)
    assert not (tmp_path / "second").exists()


def test_an_upload_of_a_file_that_is_not_there_writes_nothing(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing-file"):
        store.upload(tmp_path / "missing-file", "k")
    assert store.list("") == []


def test_a_local_path_is_the_object_itself_or_none(store: ObjectStore) -> None:
    store.put("a/k", b"here")
    path = store.local_path("a/k")
    assert path is None or path.read_bytes() == b"here"


def test_the_uri_has_no_slash_at_its_end(store: ObjectStore) -> None:
    assert store.uri and not store.uri.endswith("/")


def test_entries_can_be_compared(store: ObjectStore) -> None:
    store.put("k", b"1")
    assert isinstance(store.stat("k"), Entry)
    assert store.stat("k") == store.stat("k")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
