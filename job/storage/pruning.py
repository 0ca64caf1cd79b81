"""Deletes what a run needs no more, only behind a commit that reads back: record first, files after.

So a crash in between leaves files without a record, which do not exist for anyone; a later attempt sweeps them.
"""

import re
from collections.abc import Callable
from pathlib import Path

from job.errors import DataError, StorageError
from job.storage.attempts import Owner, check_fence
from job.storage.checkpoints import commit_keys, read_commit, step_of
from job.storage.checksum import crc_of_file
from job.storage.disk import disk_errors
from job.storage.records import FileRecord
from job.storage.store import ObjectStore

UPLOAD = re.compile(r"(checkpoints/(\d{4,})-[0-9a-f]{12}/step-[^/]+)/")


def prune(
    store: ObjectStore,
    owner: Owner,
    newest: str,
    keep: int,
    best_step: int | None,
    say: Callable[[str], None],
    sweep: bool = True,
) -> None:
    """Delete old commits behind `newest`, which must read back: record first, files after.

    Kept: the newest `keep` undamaged ones and the best. `sweep`: also what killed uploads and prunes of earlier
    attempts left. Where the store refuses: a warning.
    Raises: Fenced, before anything is deleted.
    """
    check_fence(store, owner)
    try:
        back = read_commit(store, newest)
        for file in back.files:
            _check_stored(store, f"{back.folder}/{file.name}", file)
    except (DataError, StorageError) as error:
        say(f"old checkpoints are kept: the newest commit, {newest}, does not read back: {error}")
        return
    keys, marked = commit_keys(store), damaged(store)
    kept = {newest, *[key for key in keys if key not in marked][:keep]}
    try:
        for key in keys:
            if key in kept or step_of(key) == best_step:
                continue
            try:
                folder = read_commit(store, key).folder
            except DataError:  # unreadable or already gone: there is no folder to name
                folder = None
            store.delete([key])
            if folder is not None:
                store.delete([entry.key for entry in store.list(f"{folder}/")])
        if sweep:
            _sweep(store, owner)
    except StorageError as error:
        say(f"old checkpoints were not deleted: {error}")


def _check_stored(store: ObjectStore, key: str, file: FileRecord) -> None:
    """By the checksum the store keeps of the whole object; where files can be read in place, by reading them.

    Only the size is left to compare where a store keeps no checksum. Raises: DataError.
    """
    stored = store.stat(key)
    if stored.size != file.size:
        raise DataError(f"{key} has another size")
    crc, path = stored.crc64nvme, store.local_path(key)
    if crc is None and path is not None:
        with disk_errors(path):
            crc = crc_of_file(path).base64()
    if crc is not None and file.crc64nvme is not None and crc != file.crc64nvme:
        raise DataError(f"{key} is not what was sent (CRC64NVME differs)")


def _sweep(store: ObjectStore, owner: Owner) -> None:
    """Files below `checkpoints/` of earlier attempts that no record names."""
    named = set()
    for key in commit_keys(store):
        try:
            named.add(read_commit(store, key).folder)
        except DataError:
            return  # a record that cannot be read may name any folder
    orphans = []
    for entry in store.list("checkpoints/"):
        match = UPLOAD.match(entry.key)
        if match and int(match[2]) < owner.attempt and match[1] not in named:
            orphans.append(entry.key)
    store.delete(orphans)


def damaged(store: ObjectStore) -> set[str]:
    """Keys of the commits that some attempt found damaged."""
    return {f"commits/{Path(entry.key).stem.rpartition('-')[0]}.json" for entry in store.list("damaged/")}
