"""Deletes what a run needs no more, only behind a commit that reads back: record first, files after.

So a crash in between leaves files without a record, which do not exist for anyone; a later attempt sweeps them.
"""

import re
from collections.abc import Callable
from pathlib import Path

from job.errors import DataError, StorageError
from job.storage.attempts import Owner, check_fence
from job.storage.checkpoints import commit_keys, read_commit, step_of
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
            if store.stat(f"{back.folder}/{file.name}").size != file.size:
                raise DataError(f"{back.folder}/{file.name} has another size")
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
