import json
import sys
from typing import Any

import pytest

from job.config import RunConfig
from job.errors import ConfigError
from job.report.trackers import check_trackers, evaluation_scalars, step_scalars, tracker_ids
from job.storage.memory import MemoryStore


def test_every_attempt_gets_the_id_and_project_of_the_first() -> None:
    store = MemoryStore()
    first = tracker_ids(store, "wandb", "stories")
    assert first["project"] == "stories"
    assert tracker_ids(store, "wandb", "another") == first
    assert json.loads(store.get("trackers.json")) == {"wandb": first}


def test_a_tracker_added_later_leaves_the_others_ids_alone() -> None:
    store = MemoryStore()
    store.put("trackers.json", b'{"other": {"id": "1"}}')
    ids = tracker_ids(store, "wandb", "p")
    assert json.loads(store.get("trackers.json")) == {"other": {"id": "1"}, "wandb": ids}


def test_runs_have_ids_of_their_own() -> None:
    assert tracker_ids(MemoryStore(), "wandb", "p")["id"] != tracker_ids(MemoryStore(), "wandb", "p")["id"]


def test_a_missing_extra_is_a_mistake_of_the_config(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.from_dict({**settings, "track": ["tensorboard", "wandb"]})
    check_trackers(config)  # it is installed here
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"track: \[wandb\] needs pip install 'sft-job\[wandb\]'"):
        check_trackers(config)


def test_scalars_have_dashboard_names() -> None:
    event = {"kind": "step", "step": 3, "epoch": 0.5, "loss": 2, "grad_norm": None, "tokens": 300, "seconds": 1.5}
    assert step_scalars(event) == {"train/loss": 2.0, "train/epoch": 0.5, "train/tokens_per_second": 200.0}
    metrics = {"eval_loss": 1.5, "eval_perplexity": 4.48, "accuracy": 0.5, "note": "text"}
    assert evaluation_scalars({"metrics": metrics}) == {"eval/loss": 1.5, "eval/perplexity": 4.48, "eval/accuracy": 0.5}
