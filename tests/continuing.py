"""Runs of a tiny model that others go on from: where they lie, how they are started, and what they leave."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from job.storage.checkpoints import download_files
from job.storage.records import RESULT, Result
from job.storage.store import ObjectStore, open_store
from tests import standins
from tests.harness import Job, finish, sets

STEPS = 40
CONFIG = """
run: {root}/runs/alone
model: {{base: "{root}/base"}}
data: {{train: ["{root}/chat.jsonl"], eval: 0.1, max_length: 64}}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
train: {{max_steps: {steps}, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 20}}
checkpoint: {{every: 10 steps, keep: 9}}
parallel: {{device: cpu}}
"""

Tensors = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Runs:
    """Runs below one root, a folder or a bucket, with base and data beside them."""

    root: str
    home: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        self.config.write_text(CONFIG.format(root=self.root, steps=STEPS), encoding="utf-8")

    @property
    def config(self) -> Path:
        return self.home / "run.yaml"

    def place(self, name: str) -> str:
        return f"{self.root}/runs/{name}"

    def store(self, name: str) -> ObjectStore:
        return open_store(self.place(name))

    def job(self, name: str, **fields: Any) -> Job:
        """`sft-job run` of the config with another run folder and these fields."""
        values = {"run": self.place(name), **{key.replace("__", "."): value for key, value in fields.items()}}
        return Job(["run", str(self.config), *sets(values)], self.home, self.extra)

    def run(self, name: str, code: int = 0, **fields: Any) -> Job:
        job = self.job(name, **fields)
        assert job.ended() == code, job.said()
        return job

    def command(self, *arguments: str, code: int = 0) -> Job:
        return finish(arguments, self.home, self.extra, code)

    def result(self, name: str) -> Result:
        return Result.parse(self.store(name).get(RESULT), RESULT)

    def tensors(self, name: str) -> Tensors:
        """Of the result, verified."""
        result, folder = self.result(name), self.home / f"result-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        download_files(self.store(name), result.folder, result.files, folder)
        return load_file(next(folder.glob("*model.safetensors")))


def inputs(folder: Path) -> None:
    """A base, and rows of which every one differs."""
    standins.gemma(folder / "base")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"微调测试 {n}"},
                {"role": "assistant", "content": f"我学会了 {n * n}"},
            ]
        }
        for n in range(64)
    ]
    standins.write_rows(folder / "chat.jsonl", rows)


def upload_inputs(folder: Path, store: ObjectStore) -> None:
    for file in sorted((folder / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(folder / "chat.jsonl", "chat.jsonl")


def same(one: Tensors, other: Tensors) -> bool:
    """To the last bit."""
    assert one.keys() == other.keys() and one
    return all(tensor.tobytes() == other[name].tobytes() for name, tensor in one.items())
