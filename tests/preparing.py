"""A run folder whose data wait to be prepared, and what is to be seen there afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from job import tiny
from job.config import RunConfig
from job.errors import DataError
from job.prepare import prepare
from job.rundir import Prepare, RunDir
from job.training.dataset import PreparedRows
from tests import standins

URI = "s3://data/chat.jsonl"


def ready(
    folder: Path, data: Sequence[Any] | bytes, evaluation: Sequence[Any] | None = None, *, tokenizer: str = "gemma",
    seed: int = 42, name: str = "chat.jsonl", template: str | None = None, **options: Any,
) -> RunDir:  # fmt: skip
    """A run folder below `folder`, with its request; `data` is rows, or a file's bytes. `options`: fields of `data`."""
    run = RunDir(folder / f"run-{len(list(folder.iterdir()))}").make()
    made = tiny.make_tokenizer() if tokenizer == "gemma" else standins.gpt_neo_tokenizer()
    made.save_pretrained(run.tokenizer)
    run.data.mkdir()
    path = run.data / name
    path.write_bytes(data) if isinstance(data, bytes) else standins.write_rows(path, data)
    held = []
    if evaluation is not None:
        other = standins.write_rows(run.data / "eval.jsonl", evaluation)
        held, options["eval"] = [{"uri": "s3://data/eval.jsonl", "path": str(other)}], "s3://data/eval.jsonl"
    config = RunConfig.from_dict(
        {
            "run": "s3://runs/a",
            "model": {"base": "s3://models/a", "chat_template": template},
            "data": {"train": [URI], **options},
            "lora": None,
            "train": {"seed": seed},
        }
    )
    source = {"uri": f"s3://data/{name}", "path": str(path), "format": None, "columns": None, "loss": None}
    Prepare(config.to_dict(), [source], held).write(run)
    return run


def chats(number: int) -> list[Any]:
    return [chat(f"question {index}", f"answer {index}") for index in range(number)]


def chat(*texts: str) -> Any:
    return {"messages": [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]}


def left(run: RunDir) -> list[str]:
    """What preparation left in the run folder beside what was there before it."""
    known = {"inputs", "snapshots", "prepare.json", "events.jsonl"}
    return sorted(entry.name for entry in run.path.iterdir() if entry.name not in known)


def train_rows(run: RunDir, split: str = "train") -> PreparedRows:
    return PreparedRows(run.prepared, split)


def sources(rows: PreparedRows) -> list[str]:
    return [rows.source(index) for index in range(len(rows))]


def failure(run: RunDir) -> str:
    with pytest.raises(DataError) as caught:
        prepare(run)
    assert left(run) == [] and "\n" not in str(caught.value)
    return str(caught.value)
