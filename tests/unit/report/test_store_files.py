"""Segments, samples and mirrored folders over a store that fails now and then."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.errors import StorageError
from job.report.mirror import Mirror
from job.report.samples import Samples, with_figures
from job.report.segments import Segments
from job.storage.memory import MemoryStore


class FailingStore(MemoryStore):
    """Refuses writes while `failing`."""

    failing = False
    puts = 0

    def put(self, key: str, data: bytes) -> None:
        if self.failing:
            raise StorageError("no connection")
        self.puts += 1
        super().put(key, data)


def _lines(store: MemoryStore, key: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.get(key).splitlines()]


def _step(step: int, logged: bool = True) -> dict[str, Any]:
    return {"kind": "step", "step": step, "loss": 1.0, "logged": logged}


def test_each_flush_writes_the_next_segment_of_logged_steps() -> None:
    store = MemoryStore()
    segments = Segments(store, 7)
    for step in range(1, 5):
        segments.add(_step(step, logged=step % 2 == 0), 100.0 + step)
    segments.flush()
    segments.flush()  # nothing new: no object
    segments.add({"kind": "commit", "step": 4, "bytes": 9}, 105.0)
    segments.add({"kind": "preparing", "done": 1, "total": 2}, 105.0)
    segments.flush()
    assert [entry.key for entry in store.list("events/")] == ["events/0007-00001.jsonl", "events/0007-00002.jsonl"]
    assert [line["step"] for line in _lines(store, "events/0007-00001.jsonl")] == [2, 4]
    assert _lines(store, "events/0007-00002.jsonl") == [{"kind": "commit", "step": 4, "bytes": 9, "time": 105.0}]


def test_a_segment_that_could_not_be_stored_is_not_lost() -> None:
    store = FailingStore()
    segments = Segments(store, 1)
    segments.add(_step(1), 0.0)
    store.failing = True
    with pytest.raises(StorageError):
        segments.flush()
    store.failing = False
    segments.add(_step(2), 0.0)
    segments.flush()
    assert [line["step"] for line in _lines(store, "events/0001-00001.jsonl")] == [1, 2]


def test_segments_hold_the_figures_of_samples_but_not_their_texts() -> None:
    store = MemoryStore()
    segments = Segments(store, 1)
    segments.add({"kind": "samples", "step": 3, "rows": with_figures([{"prompt": "p", "generation": "a b"}])}, 0.0)
    segments.flush()
    (line,) = _lines(store, "events/0001-00001.jsonl")
    assert line["rows"] == [{"distinct_words": 2, "words": 2, "repetition": 0.0}]


def test_samples_are_kept_until_they_are_stored_and_a_replayed_step_replaces_its_own() -> None:
    store = FailingStore()
    samples = Samples(store)
    samples.add(240, with_figures([{"prompt": "微调测试", "generation": "?"}]))
    store.failing = True
    with pytest.raises(StorageError):
        samples.flush()
    store.failing = False
    samples.flush()
    samples.add(240, with_figures([{"prompt": "微调测试", "generation": "我学会了"}]))
    samples.flush()
    assert _lines(store, "samples/step-00000240.jsonl") == [
        {
            "step": 240,
            "prompt": "微调测试",
            "generation": "我学会了",
            "distinct_words": 4,
            "words": 4,
            "repetition": 0.0,
        }
    ]


def test_a_mirror_puts_only_files_that_changed(tmp_path: Path) -> None:
    store = FailingStore()
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "debug.log").write_text("chatter")
    (tmp_path / "run" / "a.wandb").write_text("one")
    mirror = Mirror(store, tmp_path, "wandb", ("run/*.wandb", "run/files/**/*"))
    store.failing = True
    with pytest.raises(StorageError):
        mirror.push()
    store.failing = False
    mirror.push()
    mirror.push()
    assert store.puts == 1
    (tmp_path / "run" / "a.wandb").write_text("one two")
    mirror.push()
    assert store.puts == 2
    assert [(entry.key, entry.size) for entry in store.list("")] == [("wandb/run/a.wandb", 7)]


def test_a_mirror_of_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    Mirror(store, tmp_path / "none", "tensorboard").push()
    assert store.list("") == []
