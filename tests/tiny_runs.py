"""Runs of one tiny job in a folder or on S3, and whether two of them ended in the very same tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from job.storage.checkpoints import download_files
from job.storage.records import Result
from job.storage.store import ObjectStore, open_store
from tests.harness import Job, finish, sets

STEPS = 150


@dataclass(frozen=True)
class TinyRuns:
    """Where a run's inputs and folder lie, and the environment that reaches them."""

    root: str
    home: Path
    extra: Mapping[str, str]

    def job(self, name: str, **fields: Any) -> Job:
        return Job(self.arguments(name, fields), self.home, self.extra)

    def finish(self, name: str, code: int = 0, **fields: Any) -> Job:
        return finish(self.arguments(name, fields), self.home, self.extra, code)

    def arguments(self, name: str, fields: Mapping[str, Any]) -> list[str]:
        overrides = {"run": f"{self.root}/runs/{name}", **{key.replace("__", "."): at for key, at in fields.items()}}
        return ["run", str(self.home / "run.yaml"), *sets(overrides)]

    def store(self, name: str) -> ObjectStore:
        return open_store(f"{self.root}/runs/{name}")

    def write_config(self, lora: str) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "run.yaml").write_text(
            f"""
run: {self.root}/runs/default
model: {{base: "{self.root}/base"}}
data: {{train: ["{self.root}/chat.jsonl"], eval: 0.1, max_length: 64}}
lora: {lora}
train: {{max_steps: {STEPS}, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 20}}
checkpoint: {{every: 10 steps, keep: 3}}
parallel: {{device: cpu}}
""",
            encoding="utf-8",
        )


def final_tensors(store: ObjectStore, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    result = Result.parse(store.get("final/result.json"), "result")
    download_files(store, result.folder, result.files, folder)
    return load_file(next(folder.glob("*model.safetensors")))


def assert_same(place: TinyRuns, one: str, other: str, tmp_path: Path) -> None:
    first = final_tensors(place.store(one), tmp_path / one)
    second = final_tensors(place.store(other), tmp_path / other)
    assert first.keys() == second.keys() and first
    for name, tensor in first.items():
        assert tensor.tobytes() == second[name].tobytes(), name
