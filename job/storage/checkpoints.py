"""Files first, record last. A checkpoint without its record does not exist.

Commits order by (attempt, step): what a fenced attempt still writes is never chosen over its successor's.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError, HardwareError, StorageError
from job.storage.attempts import Owner, check_fence, now
from job.storage.checksum import crc_of_file
from job.storage.records import COMMIT_KEY, Commit, FileRecord
from job.storage.store import NotFound, ObjectStore

PROBE = "commits/probe"


@dataclass(frozen=True)
class Provenance:
    """What every commit of an attempt says about where it comes from."""

    run_digest: str
    prepared: str
    world_size: int
    strategy: str
    versions: dict[str, str]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_folder(store: ObjectStore, folder: Path, prefix: str) -> list[FileRecord]:
    """Upload every file of `folder` below `prefix`; hashes are of the local bytes."""
    records = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = path.relative_to(folder).as_posix()
        crc = crc_of_file(path).base64()
        records.append(FileRecord(name=name, size=path.stat().st_size, sha256=sha256(path), crc64nvme=crc))
        store.upload(path, f"{prefix}/{name}")
    return records


def download_files(store: ObjectStore, prefix: str, files: list[FileRecord], folder: Path) -> None:
    """Download and check every file; a file that differs is read once more, past what any cache gave.

    Raises: DataError naming the file that is damaged or missing; HardwareError where it came whole and cannot be kept
    so: then this machine is at fault, and no commit is condemned.
    """
    for file in files:
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            target.unlink(missing_ok=True)
            came = store.download(f"{prefix}/{file.name}", target)
            if target.stat().st_size == file.size and sha256(target) == file.sha256:
                break
        else:
            if came.crc64nvme is not None and came.crc64nvme == file.crc64nvme != crc_of_file(target).base64():
                raise HardwareError(
                    f"{store.uri}/{prefix}/{file.name} came whole, but {target} does not hold what was written to it; "
                    "this machine's disk or memory is faulty: run on another"
                )
            raise DataError(f"{store.uri}/{prefix}/{file.name} is not the file that was committed (SHA-256 differs)")


def commit_keys(store: ObjectStore) -> list[str]:
    """Newest first. Attempts that share a number are in the order in which they fence each other: by nonce."""
    found = [match for entry in store.list("commits/") if (match := COMMIT_KEY.fullmatch(entry.key))]
    found.sort(key=lambda match: (int(match[1]), match[3] or "", int(match[2])), reverse=True)
    return [match[0] for match in found]


def step_of(key: str) -> int:
    match = COMMIT_KEY.fullmatch(key)
    assert match is not None
    return int(match[2])


def read_commit(store: ObjectStore, key: str) -> Commit:
    return Commit.parse(store.get(key), f"{store.uri}/{key}")


def commit(
    store: ObjectStore,
    owner: Owner,
    snapshot: Path,
    step: int,
    parent: str | None,
    evaluations: list[dict[str, object]],
    source: Provenance,
) -> str:
    """Upload a whole snapshot and write its record; returns the commit's key.

    Raises: Fenced before anything is written when a newer attempt exists; StorageError.
    """
    check_fence(store, owner)
    folder = f"checkpoints/{owner.attempt:04d}-{owner.nonce}/step-{step}-{secrets.token_hex(4)}"
    files = upload_folder(store, snapshot, folder)
    check_fence(store, owner)
    record = Commit(
        attempt=owner.attempt,
        nonce=owner.nonce,
        step=step,
        folder=folder,
        files=files,
        parent=parent,
        run_digest=source.run_digest,
        prepared=source.prepared,
        evaluations=evaluations,
        world_size=source.world_size,
        strategy=source.strategy,
        versions=source.versions,
        created=now(),
    )
    key = owner.commit_key(step)
    if store.put_if_absent(key, record.dump()):
        return key
    if read_commit(store, key).nonce == owner.nonce and not _marked(store, key, owner.attempt):
        return key  # an earlier try of ours, whose answer was lost
    raise StorageError(
        f"{store.uri}/{key} exists already: this attempt found it damaged, or never wrote it; "
        "the next checkpoint takes its place"
    )


def restore(store: ObjectStore, attempt: int, target: Path, say: Callable[[str], None]) -> tuple[str, Commit] | None:
    """Bring the newest commit that is whole to `target`; None where there is no commit at all.

    A damaged one is reported, marked for people and for pruning, and the one before is taken. What is not there is
    looked for once more in a new list: an older attempt that does not know yet may be pruning.
    Raises: DataError when commits exist and none can be read: never a silent restart. StorageError.
    """
    passed: set[str] = set()
    vanished: set[str] = set()
    while key := next((key for key in _fresh_commit_keys(store) if key not in passed), None):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            found = read_commit(store, key)
            download_files(store, found.folder, found.files, target)
            return key, found
        except NotFound as missing:
            if key not in vanished:
                vanished.add(key)
                continue
            damage: DataError = missing
        except DataError as error:
            damage = error
        passed.add(key)
        say(f"commit {key} is damaged: {damage}; taking the one before")
        marker = {"commit": key, "attempt": attempt, "reason": str(damage), "time": now()}
        store.put(_marker(key, attempt), json.dumps(marker).encode())
    if passed | vanished:
        raise DataError(
            f"{store.uri} has commits ({', '.join(sorted(passed | vanished))}) and none can be read whole; nothing was "
            "deleted. Restore the files they name, or begin anew in another run folder"
        )
    return None


def fetch_best(store: ObjectStore, step: int | None, target: Path, wanted: bool) -> None:
    """The files of the commit of the best evaluation so far, where the result will be made of them.

    Raises: DataError when no commit of that step can be read whole.
    """
    if not wanted or step is None:
        return
    problem = "it is missing"
    for key in commit_keys(store):
        if step_of(key) != step:
            continue
        shutil.rmtree(target, ignore_errors=True)
        try:
            found = read_commit(store, key)
            download_files(store, found.folder, found.files, target)
            return
        except DataError as damage:
            problem = str(damage)
    raise DataError(f"{store.uri}: the commit of the best evaluation, step {step}, cannot be read: {problem}")


def _fresh_commit_keys(store: ObjectStore) -> list[str]:
    """What others committed is never missed: to miss it is to begin anew beside a run that exists.

    A client of a network filesystem remembers what a folder holds, for a minute or so, until it changes it itself.
    """
    store.put(PROBE, secrets.token_hex(8).encode())
    return commit_keys(store)


def _marked(store: ObjectStore, key: str, attempt: int) -> bool:
    """Whether this attempt found the commit damaged."""
    try:
        store.get(_marker(key, attempt))
    except NotFound:
        return False
    return True


def _marker(key: str, attempt: int) -> str:
    return f"damaged/{Path(key).stem}-{attempt:04d}.json"
