"""Damage on the way into the store is noticed before an older commit goes, and a faulty machine condemns no commit."""

import os
from pathlib import Path

import pytest

from job.errors import HardwareError, StorageError
from job.storage.arrival import misfit
from job.storage.checkpoints import commit_keys, download_files, read_commit, restore
from job.storage.checksum import crc_of
from job.storage.memory import MemoryStore
from job.storage.pruning import prune
from job.storage.store import Entry, ObjectStore, open_store
from tests.committing import claimed, committed, flip, owner, restored, snapshot
from tests.hooked_store import HookedStore
from tests.servers import Bucket, Fault, FaultyProxy

DATA = b"what was sent"
CRC = crc_of(DATA).base64()


@pytest.mark.parametrize(
    ("stored", "md5", "fits"),
    [
        (Entry("k", 13, "e", CRC), "the md5", True),
        (Entry("k", 13, "e", None), None, True),
        (Entry("k", 13, "e", CRC), None, True),
        (Entry("k", 6, "e", CRC), "the md5", False),
        (Entry("k", 13, "e", crc_of(b"what was kept").base64()), "the md5", False),
        (Entry("k", 13, "e", CRC), "another", False),
        (Entry("k", 13, "e", None), "another", False),
    ],
)
def test_everything_a_store_says_of_an_object_has_to_fit(stored: Entry, md5: str | None, fits: bool) -> None:
    assert (misfit(stored, md5, crc_of(DATA), lambda: "the md5") is None) == fits


def test_nothing_goes_behind_a_commit_whose_file_is_damaged_in_the_store(
    any_store: ObjectStore, tmp_path: Path
) -> None:
    by, said = claimed(any_store), list[str]()
    keys = [committed(any_store, tmp_path, by, step) for step in (10, 20, 30)]
    flip(any_store, read_commit(any_store, keys[-1]))
    prune(any_store, owner(), keys[-1], 1, None, said.append)
    assert sorted(commit_keys(any_store)) == keys
    assert len(said) == 1 and "not what was sent" in said[0]
    assert restored(any_store, tmp_path) == 20


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("times", [1, 10**9])
def test_a_commit_stands_only_if_its_files_arrived_as_they_were_sent(
    s3: Bucket, faulty: FaultyProxy, strict: bool, times: int, tmp_path: Path
) -> None:
    """Also where the store believes whatever checksum it is told."""
    store = open_store(f"{s3.uri}/run", give_up_after_seconds=3)
    by = claimed(store)
    committed(store, tmp_path, by, 10)
    faulty.strict = strict
    faulty.faults.append(Fault("flip_upload", match="^PUT .*/optimizer", times=times))
    if times == 1:
        committed(store, tmp_path, by, 20)
    else:
        with pytest.raises(StorageError, match="optimizer"):
            committed(store, tmp_path, by, 20)
    assert restored(store, tmp_path) == (20 if times == 1 else 10)


def test_a_byte_that_is_read_wrongly_once_condemns_no_commit(s3: Bucket, faulty: FaultyProxy, tmp_path: Path) -> None:
    store, said = open_store(f"{s3.uri}/run"), list[str]()
    committed(store, tmp_path, claimed(store), 10)
    faulty.faults.append(Fault("flip", match="^GET .*/optimizer", times=1))
    assert restored(store, tmp_path, said) == 10
    assert said == [] and store.list("damaged/") == []
    assert faulty.faults[0].times == 0


def test_a_network_that_damages_all_it_carries_is_the_storages_fault_and_no_commits(
    s3: Bucket, faulty: FaultyProxy, tmp_path: Path
) -> None:
    store, said = open_store(f"{s3.uri}/run", give_up_after_seconds=3), list[str]()
    committed(store, tmp_path, claimed(store), 10)
    faulty.faults.append(Fault("flip", match="^GET .*/optimizer"))
    with pytest.raises(StorageError, match="damages what it carries"):
        restore(store, 2, tmp_path / "resume", said.append)
    assert said == [] and store.list("damaged/") == []


def test_a_machine_that_does_not_keep_what_it_writes_condemns_no_commit(tmp_path: Path) -> None:
    store, said = HookedStore(MemoryStore()), list[str]()
    committed(store, tmp_path, claimed(store), 10)

    def rot(operation: str, key: str) -> None:
        if operation == "download":
            path = tmp_path / "resume" / Path(key).name
            path.write_bytes(path.read_bytes()[:-1] + b"?")

    store.after = rot
    with pytest.raises(HardwareError, match="run on another"):
        restore(store, 2, tmp_path / "resume", said.append)
    assert said == [] and store.list("damaged/") == []


def test_a_record_written_before_checksums_were_kept_is_still_read(any_store: ObjectStore, tmp_path: Path) -> None:
    by = claimed(any_store)
    keys = [committed(any_store, tmp_path, by, step) for step in (10, 20)]
    record = read_commit(any_store, keys[-1])
    old = record.model_copy(update={"files": [file.model_copy(update={"crc64nvme": None}) for file in record.files]})
    any_store.put(keys[-1], old.dump())
    prune(any_store, owner(), keys[-1], 1, None, print)
    assert commit_keys(any_store) == [keys[-1]]
    download_files(any_store, old.folder, old.files, tmp_path / "down")


def test_a_second_read_of_a_shared_folder_does_not_come_from_this_machines_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "store"))
    store.upload(snapshot(tmp_path, 10) / "state.json", "k")
    dropped: list[str] = []
    drop = os.posix_fadvise

    def watch(descriptor: int, first: int, length: int, advice: int) -> None:
        drop(descriptor, first, length, advice)
        if advice == os.POSIX_FADV_DONTNEED:
            dropped.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "posix_fadvise", watch)
    store.download("k", tmp_path / "down")
    assert dropped == [str(tmp_path / "store" / "k")]
