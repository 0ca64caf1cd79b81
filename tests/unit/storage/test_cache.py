"""The cache: bounded, shared, and honest about room."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from job.errors import ConfigError, HardwareError
from job.storage import cache as cache_module
from job.storage.blobs import Blob
from job.storage.cache import Cache
from job.storage.cache_folder import blob_name
from job.storage.store import Entry


class Origin:
    """Objects in memory that count how often they are downloaded."""

    def __init__(self, **objects: bytes) -> None:
        self.objects, self.downloads = objects, 0

    def entry(self, name: str) -> Entry:
        return Entry(name, len(self.objects[name]), f"etag-{hash(self.objects[name])}")

    def put_into(self, cache: Cache, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        cache.make_room([(f"x://{name}", self.entry(name))])
        cache.take(f"x://{name}", self.entry(name), path, lambda at: self.download(name, at))

    def download(self, name: str, path: Path) -> None:
        self.downloads += 1
        path.write_bytes(self.objects[name])

    def blob(self, cache: Cache, name: str) -> Blob:
        return cache.blob(f"x://{name}", self.entry(name))


def used_at(blob: Blob, seconds: int) -> None:
    os.utime(blob.path, (seconds, seconds))


def test_a_blob_is_downloaded_once_and_handed_out_by_hard_link(tmp_path: Path) -> None:
    cache, origin = Cache(tmp_path / "cache"), Origin(a=b"one")
    origin.put_into(cache, "a", tmp_path / "run1" / "a")
    origin.put_into(cache, "a", tmp_path / "run2" / "a")
    assert origin.downloads == 1
    assert (tmp_path / "run1" / "a").stat().st_ino == (tmp_path / "run2" / "a").stat().st_ino
    assert (tmp_path / "run2" / "a").read_bytes() == b"one"


def test_the_same_content_under_another_uri_is_the_same_blob() -> None:
    one, two = Entry("a", 3, "e1", crc64nvme="AAAA"), Entry("b", 3, "e2", crc64nvme="AAAA")
    assert blob_name("s3://x/a", one) == blob_name("s3://y/b", two)
    assert blob_name("s3://x/a", Entry("a", 3, "e1")) != blob_name("s3://x/a", Entry("a", 3, "e2"))


def test_a_blob_of_the_wrong_size_is_thrown_away_and_pulled_again(tmp_path: Path) -> None:
    cache, origin = Cache(tmp_path / "cache"), Origin(a=b"whole")
    origin.put_into(cache, "a", tmp_path / "a")
    (tmp_path / "a").unlink()
    origin.blob(cache, "a").path.write_bytes(b"who")
    origin.put_into(cache, "a", tmp_path / "a")
    assert (origin.downloads, (tmp_path / "a").read_bytes()) == (2, b"whole")


def test_the_least_recently_used_blob_goes_first(tmp_path: Path) -> None:
    block = b"x" * 40_000
    origin = Origin(old=block, used=block + b"1", new=block + b"2")
    cache = Cache(tmp_path / "cache", limit_bytes=100_000)
    for name, seconds in (("used", 1000), ("old", 2000)):
        origin.put_into(cache, name, tmp_path / name)
        (tmp_path / name).unlink()
        used_at(origin.blob(cache, name), seconds)
    origin.put_into(cache, "used", tmp_path / "used")  # used again, now later than "old"
    (tmp_path / "used").unlink()
    origin.put_into(cache, "new", tmp_path / "new")
    there = {name for name in origin.objects if origin.blob(cache, name).path.exists()}
    assert there == {"used", "new"}


def test_what_a_run_holds_by_link_outlives_what_nobody_holds(tmp_path: Path) -> None:
    block = b"x" * 40_000
    origin = Origin(held=block, loose=block + b"1", new=block + b"2")
    cache = Cache(tmp_path / "cache", limit_bytes=100_000)
    for name in ("held", "loose"):
        origin.put_into(cache, name, tmp_path / name)
    (tmp_path / "loose").unlink()
    used_at(origin.blob(cache, "held"), 1000)
    used_at(origin.blob(cache, "loose"), 2000)
    origin.put_into(cache, "new", tmp_path / "new")
    assert origin.blob(cache, "held").path.exists()
    assert not origin.blob(cache, "loose").path.exists()


def test_evicting_a_blob_that_a_run_links_leaves_the_run_its_file(tmp_path: Path) -> None:
    origin = Origin(held=b"x" * 40_000, new=b"y" * 90_000)
    cache = Cache(tmp_path / "cache", limit_bytes=100_000)
    origin.put_into(cache, "held", tmp_path / "held")
    origin.put_into(cache, "new", tmp_path / "new")
    assert not origin.blob(cache, "held").path.exists()
    assert (tmp_path / "held").read_bytes() == origin.objects["held"]


def test_a_blob_handed_out_by_symlink_is_not_evicted_until_the_cache_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_filesystem(*paths: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_filesystem)
    origin, cache = Origin(a=b"a" * 5000), Cache(tmp_path / "cache")
    origin.put_into(cache, "a", tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_bytes() == origin.objects["a"]
    assert not origin.blob(Cache(tmp_path / "cache"), "a").try_discard()
    cache.close()
    assert origin.blob(Cache(tmp_path / "cache"), "a").try_discard()


def test_a_blob_that_is_being_written_is_not_evicted(tmp_path: Path) -> None:
    blob = Blob(tmp_path / "blob")
    with blob.writing():
        (blob.folder / "partial").write_bytes(b"half")
        assert not Blob(tmp_path / "blob").try_discard()
    assert Blob(tmp_path / "blob").try_discard()
    assert not (blob.folder / "partial").exists()


def test_too_little_free_space_is_told_before_the_first_byte(tmp_path: Path) -> None:
    origin = Origin(a=b"a" * 5000)
    cache = Cache(tmp_path / "cache", free=lambda folder: cache_module.MARGIN_BYTES + 4999)
    with pytest.raises(HardwareError, match=r"free below .*cache.*SFT_JOB_HOME"):
        origin.put_into(cache, "a", tmp_path / "a")
    assert origin.downloads == 0
    assert not (tmp_path / "a").exists()
    assert not origin.blob(cache, "a").folder.exists()


def test_a_pull_larger_than_the_bound_is_refused_and_names_the_bound(tmp_path: Path) -> None:
    origin = Origin(a=b"a" * 5000)
    with pytest.raises(HardwareError, match="SFT_JOB_CACHE_GB"):
        origin.put_into(Cache(tmp_path / "cache", limit_bytes=4000), "a", tmp_path / "a")
    assert origin.downloads == 0


def test_a_disk_that_fills_up_during_the_download_leaves_nothing_behind(tmp_path: Path) -> None:
    origin, cache = Origin(a=b"a" * 5000), Cache(tmp_path / "cache")

    def full(path: Path) -> None:
        path.with_name("partial").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(HardwareError, match="SFT_JOB_HOME"):
        cache.take("x://a", origin.entry("a"), tmp_path / "a", full)
    assert origin.blob(cache, "a").parts() == []
    assert not (tmp_path / "a").exists()


def test_evicted_space_is_counted_when_the_disk_is_short(tmp_path: Path) -> None:
    origin = Origin(old=b"o" * 40_000, new=b"n" * 30_000)
    cache = Cache(tmp_path / "cache")
    origin.put_into(cache, "old", tmp_path / "old")
    (tmp_path / "old").unlink()

    def free(folder: Path) -> int:
        gone = not origin.blob(cache, "old").path.exists()
        return cache_module.MARGIN_BYTES + (40_000 if gone else 0)

    origin.put_into(Cache(tmp_path / "cache", free=free), "new", tmp_path / "new")
    assert (tmp_path / "new").exists()


def test_two_threads_that_want_one_blob_download_it_once(tmp_path: Path) -> None:
    origin, begun, go_on = Origin(a=b"one"), threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        begun.set()
        assert go_on.wait(20)
        origin.download("a", path)

    def take(name: str) -> None:
        Cache(tmp_path / "cache").take("x://a", origin.entry("a"), tmp_path / name, slow)

    first = threading.Thread(target=take, args=("first",))
    first.start()
    assert begun.wait(20)
    second = threading.Thread(target=take, args=("second",))
    second.start()
    go_on.set()
    first.join(20)
    second.join(20)
    assert origin.downloads == 1
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes() == b"one"


def test_the_cache_lies_below_sft_job_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    assert Cache().folder == tmp_path / "home" / "cache"
    assert (tmp_path / "home" / "cache" / "blobs").is_dir()


@pytest.mark.parametrize("given", ["many", "-1", "0", "inf", "nan"])
def test_a_bound_that_is_no_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("SFT_JOB_CACHE_GB", given)
    with pytest.raises(ConfigError, match="SFT_JOB_CACHE_GB"):
        Cache(tmp_path)


def test_the_bound_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFT_JOB_CACHE_GB", "0.5")
    assert Cache(tmp_path).limit_bytes == 500_000_000


def test_a_home_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HardwareError, match="SFT_JOB_HOME"):
        Cache(tmp_path / "file" / "cache")


@pytest.mark.parametrize(("umask", "folder", "file"), [(0o022, 0o775, 0o664), (0o077, 0o700, 0o600)])
def test_the_group_may_write_where_the_umask_lets_it_read(tmp_path: Path, umask: int, folder: int, file: int) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from job.storage.cache import Cache; from job.storage.store import Entry\n"
        f"os.umask({umask}); cache = Cache(Path(sys.argv[1]) / 'cache'); entry = Entry('a', 1, 'e')\n"
        "cache.take('x://a', entry, Path(sys.argv[1]) / 'a', lambda path: path.write_bytes(b'a'))\n"
        "print(cache.blob('x://a', entry).folder)"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True)
    blob = Blob(Path(out.stdout.strip()))
    assert blob.folder.stat().st_mode & 0o777 == folder
    assert blob.path.stat().st_mode & 0o777 == file
    assert (blob.folder / "lock").stat().st_mode & 0o777 == file
