"""Local files of an attempt, whose content says whose they are."""

import json
from pathlib import Path

from job.rundir import RunDir
from job.storage.attempts import Owner


def text(owner: Owner, step: int) -> str:
    return f"attempt {owner.attempt} ({owner.nonce}) step {step}"


def snapshot_files(owner: Owner, step: int) -> dict[str, str]:
    state = json.dumps({"step": step, "evaluations": [], "of": text(owner, step)})
    return {"state.json": state, "trainable.safetensors": text(owner, step)}


def snapshot(local: RunDir, owner: Owner, step: int) -> Path:
    return _made(local.path / f"snapshot-{owner.attempt}-{owner.nonce}-{step}", snapshot_files(owner, step))


def prepared(local: RunDir, owner: Owner) -> RunDir:
    """A run folder with prepared rows."""
    run = RunDir(local.path / f"prepared-{owner.attempt}-{owner.nonce}")
    _made(run.prepared, {"summary.json": text(owner, 0), "train.arrow": text(owner, 0)})
    return run


def final(local: RunDir, owner: Owner, step: int) -> RunDir:
    """A run folder with the tuned weights."""
    _made(local.final, {"adapter_model.safetensors": text(owner, step)})
    return local


def _made(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    return folder
