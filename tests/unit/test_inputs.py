"""What is found out about a run's inputs before it is claimed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from job.config import RunConfig
from job.errors import ConfigError, DataError, HardwareError
from job.inputs import bring_data, check_lora_targets, check_room
from job.rundir import RunDir
from job.storage.cache import Cache
from job.storage.pull import Pull

LLAMA = ("model.embed_tokens", "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj")
GPT2 = ("wte", "h.0.attn.c_attn", "h.0.mlp.c_fc")  # without the prefix that the loaded model has


class Said:
    """A listener that keeps its messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def pulling(self, description: str, done: int, total: int | None) -> None: ...

    def handle(self, events: list[dict[str, object]]) -> None: ...


def targets(tmp_path: Path, modules: tuple[str, ...], wanted: Any) -> list[str]:
    run = RunDir(tmp_path)
    run.base.mkdir(parents=True)
    matrix, vector = np.zeros((2, 2), np.float32), np.zeros(2, np.float32)
    tensors = {f"{name}.weight": matrix for name in modules} | {"model.norm.weight": vector}
    save_file(tensors, run.base / "model-00001-of-00001.safetensors")
    (run.base / "notes.safetensors").write_text("no safetensors at all")
    config = RunConfig.from_dict(
        {
            "run": "s3://runs/a",
            "model": {"base": "s3://models/a"},
            "data": {"train": ["s3://data/chat.jsonl"]},
            "lora": {"target_modules": wanted},
        }
    )
    said = Said()
    check_lora_targets(config, run, said)
    return said.messages


@pytest.mark.parametrize(
    ("modules", "wanted"),
    [
        (LLAMA, ["q_proj", "v_proj"]),
        (LLAMA, ["model.layers.0.self_attn.q_proj"]),
        (LLAMA, "all-linear"),
        (LLAMA, ".*no_such_pattern"),  # held against the loaded model's names, by the rank
        (GPT2, ["c_attn"]),
        ((*LLAMA, "model.layers.0.mlp.experts.0.w1"), ["gate_up_proj"]),  # a name that loading makes
        ((), ["q_proj"]),  # no safetensors file to read names from
    ],
    ids=json.dumps,
)
def test_targets_that_are_or_may_be_there_pass_in_silence(
    tmp_path: Path, modules: tuple[str, ...], wanted: Any
) -> None:
    assert targets(tmp_path, modules, wanted) == []


@pytest.mark.parametrize("wanted", [["q_porj"], ["proj"], ["norm"]], ids=json.dumps)
def test_targets_that_match_nothing_are_refused_with_those_there_are(tmp_path: Path, wanted: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"has no {wanted[0]}; there are q_proj, v_proj$"):
        targets(tmp_path, LLAMA, wanted)


def test_one_target_of_several_that_matches_nothing_is_told(tmp_path: Path) -> None:
    (message,) = targets(tmp_path, LLAMA, ["q_proj", "o_porj"])
    assert "lora.target_modules: s3://models/a has no o_porj; there are q_proj, v_proj" in message


def test_a_full_disk_is_told_before_anything_is_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_room(RunDir(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 20 << 20}))
    with pytest.raises(HardwareError, match=r"needs 64 MB free below .*, 20 MB are"):
        check_room(RunDir(tmp_path))


# ---- the data


def brought(tmp_path: Path, train: Any, evaluation: Any = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    config = RunConfig.from_dict(
        {
            "run": "s3://runs/a",
            "model": {"base": "s3://models/a"},
            "data": {"train": train, "eval": evaluation},
            "lora": None,
        }
    )
    found = bring_data(config, RunDir(tmp_path / "run"), Pull(Cache(tmp_path / "cache")))
    train_files, eval_files = found
    return train_files, eval_files  # type: ignore[return-value]


def test_each_file_comes_with_the_options_of_its_entry(tmp_path: Path) -> None:
    for name in ("a/1.jsonl", "a/2.csv", "b/train.jsonl", "b/test.jsonl", "c.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    a, b, c = (str(tmp_path / name) for name in ("a", "b", "c.json"))
    train, evaluation = brought(tmp_path, [{"uri": a, "weight": 0.5}, {"uri": b, "loss": "last"}], b)
    assert [(file["uri"], file["weight"], file["loss"], file["part"], file["split"]) for file in train] == [
        (f"{a}/1.jsonl", 0.5, None, 0, None),
        (f"{a}/2.csv", 0.5, None, 0, None),
        (f"{b}/train.jsonl", None, "last", 1, None),
    ]
    assert [file["uri"] for file in evaluation] == [f"{b}/test.jsonl"]
    (inside,), _ = brought(tmp_path, [{"uri": c, "split": "test", "weight": 1}])
    assert inside["split"] == "test" and "part" not in inside  # all count once: as without weights
    with pytest.raises(DataError, match=rf"^data\.train: {b}: there is no split dev \(there are test, train\)"):
        brought(tmp_path, [{"uri": b, "split": "dev"}])
