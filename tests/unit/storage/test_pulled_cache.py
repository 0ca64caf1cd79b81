"""What was pulled before a run, into SFT_JOB_CACHE: read in place, asked of nobody, never written to."""

from pathlib import Path

import pytest

from job.errors import ConfigError, HardwareError
from job.storage import blobs
from job.storage.cache import Cache, pulled_folder
from job.storage.cache_folder import Answer, CacheFolder
from job.storage.memory import MemoryStore
from job.storage.sources import Remote
from job.storage.store import Entry, Unreachable

A = Entry("a", 3, "e1")
URI = "x://a"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A cache into which `a` was pulled, and of which `b` is known not to be there."""
    cache = Cache(tmp_path / "shared")
    cache.remember(URI, A)
    cache.remember_absent("x://b")
    (tmp_path / "login").mkdir()
    cache.take(URI, A, tmp_path / "login" / "a", download)
    return tmp_path / "shared"


def download(path: Path) -> None:
    path.write_bytes(b"one")


def never(path: Path) -> None:
    raise AssertionError("it was downloaded")


def on_a_node(tmp_path: Path, shared: Path) -> Cache:
    return Cache(tmp_path / "node", pulled=CacheFolder(shared))


def test_what_was_pulled_is_read_where_it_lies(tmp_path: Path, shared: Path) -> None:
    node = on_a_node(tmp_path, shared)
    node.make_room([(URI, A)])
    node.take(URI, A, tmp_path / "a", never)
    assert (tmp_path / "a").is_symlink() and (tmp_path / "a").resolve().is_relative_to(shared)
    assert (tmp_path / "a").read_bytes() == b"one"
    assert not list((tmp_path / "node" / "blobs").iterdir())


def test_its_size_needs_no_room_here(tmp_path: Path, shared: Path) -> None:
    node = Cache(tmp_path / "node", free=lambda folder: 0, pulled=CacheFolder(shared))
    node.make_room([(URI, A)])
    with pytest.raises(HardwareError):
        node.make_room([(URI, A), ("x://c", Entry("c", 5, "e"))])


def test_what_is_read_is_not_evicted_by_a_pull_meanwhile(tmp_path: Path, shared: Path) -> None:
    node = on_a_node(tmp_path, shared)
    (tmp_path / "login" / "a").unlink()
    node.take(URI, A, tmp_path / "a", never)
    assert not CacheFolder(shared).blob(URI, A).try_discard()
    node.close()
    assert CacheFolder(shared).blob(URI, A).try_discard()


def test_a_filesystem_without_locks_can_be_read(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, kind: int) -> bool:
        raise HardwareError("no file locks")

    node = on_a_node(tmp_path, shared)
    monkeypatch.setattr(blobs, "lock", no_locks)
    node.take(URI, A, tmp_path / "a", never)
    assert (tmp_path / "a").read_bytes() == b"one"


def test_both_what_was_there_and_what_was_not_is_known_without_asking(tmp_path: Path, shared: Path) -> None:
    node = on_a_node(tmp_path, shared)
    assert node.answer(URI) == Answer(Entry(URI, 3, "e1"))
    assert node.answer("x://b") == Answer(None)
    assert node.answer("x://c") is None
    assert Cache(tmp_path / "other").answer(URI) is None


def test_a_blob_that_was_cut_short_or_evicted_is_asked_for_and_pulled_here(tmp_path: Path, shared: Path) -> None:
    CacheFolder(shared).blob(URI, A).path.write_bytes(b"o")
    node = on_a_node(tmp_path, shared)
    assert node.answer(URI) is None
    node.take(URI, A, tmp_path / "a", download)
    assert (tmp_path / "a").read_bytes() == b"one" and not (tmp_path / "a").is_symlink()


def test_a_store_is_not_asked_for_what_was_pulled_and_is_for_the_rest(tmp_path: Path) -> None:
    store = MemoryStore("x://data")
    for name in ("1.jsonl", "2.jsonl"):
        store.put(name, name.encode())
    cache = Cache(tmp_path / "shared")
    before = Remote(store, "", cache, lambda line: None)
    matched = before.matched("*.jsonl", lambda name: True)
    for name, entry in matched:
        cache.remember(before.file_uri(name), entry)
        cache.take(
            before.file_uri(name), entry, tmp_path / name, lambda path, name=name: path.write_bytes(name.encode())
        )

    class Gone(MemoryStore):
        def stat(self, key: str) -> Entry:
            raise Unreachable("gone")

        def list(self, prefix: str) -> list[Entry]:
            raise Unreachable("gone")

    node = Remote(Gone("x://data"), "", on_a_node(tmp_path, tmp_path / "shared"), lambda line: None)
    assert node.matched("*.jsonl", lambda name: True) == matched
    assert node.stat("1.jsonl") == matched[0][1]
    with pytest.raises(Unreachable):
        node.stat("3.jsonl")
    cache.blob(before.file_uri("1.jsonl"), matched[0][1]).path.unlink()
    with pytest.raises(Unreachable):  # half of a data set is never taken for all of it
        node.matched("*.jsonl", lambda name: True)


def test_the_folder_is_told_by_the_environment_and_has_to_be_a_cache(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    assert Cache().pulled is None and pulled_folder() is None
    monkeypatch.setenv("SFT_JOB_CACHE", str(shared))
    assert Cache().pulled == CacheFolder(shared) and Cache().folder == tmp_path / "home" / "cache"
    monkeypatch.setenv("SFT_JOB_CACHE", str(tmp_path / "typo"))
    with pytest.raises(HardwareError, match="is that filesystem mounted here"):
        Cache()
    (tmp_path / "typo").mkdir()
    with pytest.raises(ConfigError, match=r"SFT_JOB_CACHE is .*typo, but nothing was pulled there.*sft-job pull"):
        Cache()
