"""Snapshots whose content follows from their step, commits of them, and what is restored."""

from collections.abc import Callable
from pathlib import Path

from job.errors import StorageError
from job.storage.attempts import Owner
from job.storage.checkpoints import Provenance, commit, restore
from job.storage.records import Commit
from job.storage.store import ObjectStore

SOURCE = Provenance("digest", "fingerprint", 2, "ddp", {"torch": "2"})
FILES = ("trainable.safetensors", "optimizer.safetensors", "state.json")


class Crash(BaseException):
    """The process is gone: nothing may catch it."""


def owner(number: int = 1, nonce: str = "") -> Owner:
    return Owner(number, nonce or f"{number:012x}")


def claimed(store: ObjectStore, number: int = 1) -> Owner:
    made = owner(number)
    store.put(made.key, b"{}")
    return made


def content(step: int) -> dict[str, bytes]:
    return {name: f"{name} of {step}".encode() * 50 for name in FILES}


def snapshot(tmp_path: Path, step: int) -> Path:
    folder = tmp_path / f"snapshot-{step}"
    folder.mkdir(exist_ok=True)
    for name, data in content(step).items():
        (folder / name).write_bytes(data)
    return folder


def committed(
    store: ObjectStore, tmp_path: Path, by: Owner, step: int, evaluations: list[dict[str, object]] | None = None
) -> str:
    return commit(store, by, snapshot(tmp_path, step), step, None, evaluations or [], SOURCE)


def restored(store: ObjectStore, tmp_path: Path, said: list[str] | None = None, attempt: int = 99) -> int | None:
    """The step that is restored, its files compared with what was committed; None: a fresh start."""
    target = tmp_path / "resume"
    found = restore(store, attempt, target, (said if said is not None else []).append)
    if found is None:
        return None
    assert {path.name: path.read_bytes() for path in target.iterdir()} == content(found[1].step)
    return found[1].step


def refusing(operations: set[str], match: str = "", error: Exception | None = None) -> Callable[[str, str], None]:
    def hook(operation: str, key: str) -> None:
        if operation in operations and match in key:
            raise error or StorageError(f"{key}: AccessDenied")

    return hook


def flip(store: ObjectStore, record: Commit) -> None:
    key = f"{record.folder}/{FILES[1]}"
    data = bytearray(store.get(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))
