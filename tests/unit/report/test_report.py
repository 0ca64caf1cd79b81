import io
import json
import math
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from job.config import RunConfig
from job.errors import StorageError
from job.report.report import Report
from job.report.tensorboard import TensorBoard
from job.storage.folder import FolderStore
from job.storage.memory import MemoryStore
from job.storage.store import ObjectStore


def _step(step: int, **fields: Any) -> dict[str, Any]:
    figures = {"epoch": 0.1, "loss": 2.0, "grad_norm": 0.5, "learning_rate": 1e-4, "tokens": 100, "seconds": 0.5}
    return {"kind": "step", "step": step, **figures, "logged": True, **fields}


EVENTS: list[dict[str, Any]] = [
    {"kind": "preparing", "done": 9, "total": 9},
    {
        "kind": "training",
        "steps": 20,
        "step": 0,
        "rows": 9,
        "parameters": 1024,
        "all_parameters": 4096,
        "strategy": "ddp",
        "computing": "float32",
        "ranks": 2,
        "device": "cpu",
        "layout": "padding-free",
    },
    _step(1),
    _step(2, logged=False),
    {"kind": "evaluation", "step": 2, "metrics": {"eval_loss": 1.5, "eval_perplexity": math.exp(1.5)}},
    {"kind": "samples", "step": 2, "rows": [{"prompt": "微调测试", "generation": "我学会了"}]},
    {"kind": "snapshot", "step": 2, "seconds": 0.1},
    {"kind": "log", "message": "a word from the ranks"},
    {"kind": "of a newer version", "step": 2},
]


def _report(config: RunConfig, store: ObjectStore, workdir: Path) -> tuple[Report, io.StringIO]:
    out = io.StringIO()
    report = Report(config, Console(file=out))
    report.begin(store, 3, "ab12", None, workdir)
    return report, out


def test_a_log_tells_the_whole_story_in_plain_lines(config: RunConfig, tmp_path: Path) -> None:
    report, out = _report(config, MemoryStore(), tmp_path)
    report.pulling("pulling data", 5, 10)
    report.pulling("pulling data", 10, 10)
    report.handle(EVENTS)
    report.committed(2, 3.2, 1_400_000_000)
    report.close("done")
    assert out.getvalue().splitlines() == [
        "pulling data  10 B in 0s",
        "reading  9 rows in 0s",
        "training 20 steps from step 0: 9 rows, 1,024 of 4,096 parameters in fp32, "
        "computing in float32 on 2 x cpu (ddp), padding-free",
        "step 1/20  loss 2.000  lr 1.0e-04  grad 0.50  200 tok/s  2.0 steps/s  eta 10s",
        "step 2/20  eval_loss 1.500  eval_perplexity 4.482",
        "  微调测试 → 我学会了  (4 distinct of 4 words)",
        "a word from the ranks",
        "step 2/20  committed  1.4 GB in 3s",
    ]


def test_before_the_attempt_is_claimed_there_are_lines_but_no_files(config: RunConfig) -> None:
    out = io.StringIO()
    report = Report(config, Console(file=out))
    report.handle(EVENTS)
    report.flush()
    report.close("busy")
    assert "a word from the ranks" in out.getvalue()


def test_the_run_folder_holds_segments_samples_and_tensorboard(config: RunConfig, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "run")
    report, _ = _report(config, store, tmp_path / "work")
    report.handle(EVENTS)
    report.committed(2, 3.2, 10)
    report.close("stopped")
    assert [entry.key for entry in store.list("")] == [
        "events/0003-00001.jsonl",
        "samples/step-00000002.jsonl",
        "tensorboard/events.out.tfevents.0000000003.ab12",
    ]
    kinds = [json.loads(line)["kind"] for line in store.get("events/0003-00001.jsonl").splitlines()]
    assert kinds == ["step", "evaluation", "samples", "snapshot", "commit"]


def test_a_tracker_that_fails_is_switched_off_with_one_line(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: TensorBoard, step: int, values: Mapping[str, float]) -> None:
        raise OSError("disk full")

    report, out = _report(config, MemoryStore(), tmp_path)
    monkeypatch.setattr(TensorBoard, "log", fail)
    report.handle([*EVENTS, _step(3), _step(4)])
    report.close("done")
    assert out.getvalue().count("tensorboard is switched off, training goes on: disk full") == 1
    assert "step 4/20" in out.getvalue()


def test_a_tracker_that_cannot_start_is_switched_off(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorboard").write_text("a file where a folder should be")
    report, out = _report(RunConfig.from_dict(settings), MemoryStore(), tmp_path)
    report.handle(EVENTS)
    report.close("done")
    assert out.getvalue().startswith("tensorboard is switched off, training goes on: ")


class UnreachableStore(MemoryStore):
    """Every put waits for `let_go`, then fails while `failing`."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go, self.failing = threading.Event(), True

    def put(self, key: str, data: bytes) -> None:
        self.let_go.wait()
        if self.failing:
            raise StorageError("no connection")
        super().put(key, data)


def test_a_store_that_hangs_holds_nothing_up_and_gets_everything_later(config: RunConfig, tmp_path: Path) -> None:
    store = UnreachableStore()
    report, _ = _report(config, store, tmp_path)
    report.handle(EVENTS)
    report.flush()  # would wait for ever, if it waited
    report.handle([_step(3)])
    assert store.list("") == []
    store.failing = False
    store.let_go.set()
    report.close("done")
    steps = [json.loads(line)["step"] for e in store.list("events/") for line in store.get(e.key).splitlines()]
    assert sorted(set(steps)) == [1, 2, 3]


def test_failing_uploads_are_said_once_and_never_raised(config: RunConfig, tmp_path: Path) -> None:
    store = UnreachableStore()
    store.let_go.set()
    report, out = _report(config, store, tmp_path)
    for step in range(3):
        report.handle([_step(step)])
        report.flush()
    report.close("failed")
    assert out.getvalue().count("report files could not be stored, to be tried again: no connection") == 1


def test_the_report_imports_no_tracker_and_no_torch() -> None:
    code = "import sys, job.report.report; print({'torch', 'tensorboard', 'wandb', 'boto3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_all_attempts_are_one_wandb_run_and_offline_files_reach_the_run_folder(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    store = FolderStore(tmp_path / "run")
    config = RunConfig.from_dict({**settings, "track": ["wandb"]})
    for attempt in (1, 2):
        report, out = _report(config, store, tmp_path / f"work-{attempt}")
        report.handle(EVENTS)
        report.close("done")
        assert "wandb" not in out.getvalue()
    run_id = json.loads(store.get("trackers.json"))["wandb"]["id"]
    names = [Path(entry.key).name for entry in store.list("wandb/") if entry.key.endswith(".wandb")]
    assert names and set(names) == {f"run-{run_id}.wandb"}
    assert not [entry.key for entry in store.list("wandb/") if "/logs/" in entry.key]
