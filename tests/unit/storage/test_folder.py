"""The folder store's own promises: permissions, hidden temporaries, keys that stay inside, and a disk that is full."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from job.errors import DataError, HardwareError, StorageError
from job.storage.disk import TEMPORARY
from job.storage.folder import FolderStore
from job.storage.store import NotFound, Transient


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "root")


def fail_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "a//b", "../a", "a/../../b", "a/", "./a", "a\0b", TEMPORARY + "x"])
def test_a_key_that_is_no_plain_relative_path_is_refused(store: FolderStore, key: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no key"):
        store.put(key, b"1")
    with pytest.raises(DataError, match="no key"):
        store.get(key)
    assert list(tmp_path.iterdir()) == []


def test_the_umask_decides_who_may_read(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"1")
    before = os.umask(0o027)
    try:
        store.put("a/put", b"1")
        store.put_if_absent("a/claim", b"1")
        store.upload(tmp_path / "source", "a/upload")
        store.download("a/put", tmp_path / "down" / "load")
    finally:
        os.umask(before)
    for path in (*(tmp_path / "root" / "a").iterdir(), tmp_path / "down" / "load"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "root" / "a").stat().st_mode) == 0o750


def test_a_crashed_writers_temporary_is_never_listed(store: FolderStore, tmp_path: Path) -> None:
    store.put("a/k", b"1")
    (tmp_path / "root" / "a" / (TEMPORARY + "left")).write_bytes(b"half")
    assert [entry.key for entry in store.list("")] == ["a/k"]
    assert store.list("a/" + TEMPORARY) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_changes_nothing(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "k").write_bytes(b"old")
    fail_sync(monkeypatch, number)
    with pytest.raises(HardwareError, match="no space left on the filesystem of"):
        store.put("k", b"new")
    with pytest.raises(HardwareError):
        store.upload(tmp_path / "source", "k")
    with pytest.raises(HardwareError):
        store.put_if_absent("other", b"new")
    with pytest.raises(HardwareError):
        store.download("k", tmp_path / "target")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["k"]
    assert store.get("k") == b"old"
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EACCES, StorageError), (errno.ESTALE, Transient), (errno.EIO, Transient)]
)
def test_a_refusal_is_final_and_a_hiccup_is_worth_another_try(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    fail_sync(monkeypatch, number)
    with pytest.raises(StorageError) as caught:
        store.put("k", b"1")
    assert type(caught.value) is kind


def test_a_file_where_a_folder_is_due_is_said(store: FolderStore) -> None:
    store.put("a", b"1")
    with pytest.raises(StorageError, match="root/a"):
        store.put("a/b", b"1")
    with pytest.raises(NotFound):
        store.get("a/b")
    store.delete(["a/b"])
    assert store.list("a/") == []


def test_a_folder_is_no_object(store: FolderStore) -> None:
    store.put("a/b", b"1")
    with pytest.raises(NotFound):
        store.get("a")
    with pytest.raises(NotFound):
        store.stat("a")


def test_links_are_followed_and_circles_end(store: FolderStore, tmp_path: Path) -> None:
    store.put("blobs/1", b"weights")
    root = tmp_path / "root"
    (root / "snapshot").mkdir()
    (root / "snapshot" / "model").symlink_to(root / "blobs" / "1")
    (root / "snapshot" / "nowhere").symlink_to(root / "gone")
    (root / "snapshot" / "circle").symlink_to(root / "snapshot")
    assert [entry.key for entry in store.list("snapshot/")] == ["snapshot/model"]
    assert store.stat("snapshot/model").size == 7


def test_deleting_leaves_no_empty_folders_and_harms_no_writer(store: FolderStore, tmp_path: Path) -> None:
    store.put("a/b/c/k", b"1")
    store.delete(["a/b/c/k"])
    assert list((tmp_path / "root").iterdir()) == []

    def churn(name: str) -> None:
        for _ in range(100):
            store.put(f"x/y/{name}", b"1")
            store.delete([f"x/y/{name}"])

    def safe_churn(name: str) -> None:
        try:
            churn(name)
        except Exception as error:
            faults.append(error)

    faults: list[Exception] = []
    threads = [threading.Thread(target=safe_churn, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_etags_differ_between_writes_of_one_clock_tick(store: FolderStore) -> None:
    etags = set()
    for number in range(2):
        store.put("k", b"%d" % number)
        path = store.local_path("k")
        assert path is not None
        os.utime(path, ns=(1, 1))
        etags.add(store.stat("k").etag)
    assert len(etags) == 2


def test_a_copy_that_the_disk_damaged_is_refused(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("k", b"content")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda *arguments: real(*arguments).replace(b"o", b"0"))
    with pytest.raises(StorageError, match="faulty"):
        store.download("k", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_source_that_changes_while_it_is_copied_is_not_taken(store: FolderStore, tmp_path: Path) -> None:
    store.put("k", b"content")
    with pytest.raises(Transient, match="changed while it was read"):
        store.download("k", tmp_path / "target", progress=lambda count: store.put("k", b"another"))
    assert not (tmp_path / "target").exists()
