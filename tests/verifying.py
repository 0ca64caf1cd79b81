"""A run folder whose content follows from its steps, and what a verification finds in it."""

import hashlib
import json
from pathlib import Path

from job.storage.checkpoints import Provenance, commit, upload_folder
from job.storage.records import RESULT, RUN, PreparedRecord, Result, RunRecord
from job.storage.stock import take_stock
from job.storage.store import ObjectStore
from job.storage.verification import Checked, Load, Verification
from tests.committing import claimed, snapshot

TRAJECTORY = {"train.seed": 42, "lora.dropout": 0.05}
DIGEST = hashlib.sha256(b'{"lora.dropout":0.05,"train.seed":42}').hexdigest()
SOURCE = Provenance(DIGEST, "f1", 1, "single", {})
KEYS = [f"commits/0001-{step:08d}.json" for step in (1, 2, 3)]


def make_run(store: ObjectStore, tmp_path: Path) -> ObjectStore:
    """Three commits and a result."""
    about = {"config": {}, "base": {}, "base_source": "/b", "tokenizer_source": "/b", "version": "0"}
    store.put(RUN, RunRecord(trajectory=TRAJECTORY, digest=DIGEST, prepared="f1", **about).dump())
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "train.arrow").write_bytes(b"rows")
    folder = "prepared/f1/0001"
    store.put("prepared/f1.json", PreparedRecord(folder=folder, files=upload_folder(store, rows, folder)).dump())
    by, parent = claimed(store), None
    for step in (1, 2, 3):
        parent = commit(store, by, snapshot(tmp_path, step), step, parent, [{"step": step}], SOURCE)
    final = tmp_path / "final"
    final.mkdir()
    (final / "adapter_model.safetensors").write_bytes(b"weights")
    made = {"kind": "adapter", "chat": True, "step": 3, "steps": 3, "best": None, "attempt": 1, "evaluations": []}
    files = upload_folder(store, final, "final/0001")
    result = Result(folder="final/0001", files=files, commit=parent, base="/b", created="", versions={}, **made)
    store.put(RESULT, result.dump())
    return store


def checked(store: ObjectStore, tmp_path: Path, load: Load | None = None) -> dict[str, Checked]:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    found = list(Verification(store, take_stock(store), scratch, lambda count: None, load).run())
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
    return {one.key: one for one in found}


def problems(found: dict[str, Checked]) -> dict[str, tuple[str, ...]]:
    return {key: one.problems for key, one in found.items() if one.problems}


def changed(store: ObjectStore, key: str, **fields: object) -> None:
    store.put(key, json.dumps({**json.loads(store.get(key)), **fields}).encode())


def plant(store: ObjectStore, key: str, name: str) -> None:
    """A file that belongs, by size and hash, to the record under `key`."""
    data = b"cos\nsystem\n(S'touch /tmp/opened'\ntR."
    record = json.loads(store.get(key))
    store.put(f"{record['folder']}/{name}", data)
    planted = {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    changed(store, key, files=[*record["files"], planted])
