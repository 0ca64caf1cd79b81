"""Which part of a config decides what is learned."""

import json

import jsonschema
import pytest
from pydantic import ValidationError

from job.config import RunConfig, json_schema, trajectory, trajectory_diff, trajectory_digest
from job.config.marks import Trajectory, fields

BASE = RunConfig.from_dict(
    {
        "run": "s3://runs/a",
        "model": {"base": "b"},
        "data": {"train": ["d", "e"]},
        "lora": {},
        "trl": {"adam_beta2": 0.95},
    }
)

# Another value for every field that may have one, by whether it decides what is learned.
DECIDING = {
    "model.base": "other",
    "model.tokenizer": "t",
    "model.precision": "fp32",
    "model.chat_template": "c",
    "model.attn_implementation": "eager",
    "model.trust_remote_code": True,
    "data.train": ["d"],
    "data.eval": 0.1,
    "data.format": "chat",
    "data.columns": {"prompt": "a", "completion": "b"},
    "data.loss": "all",
    "data.append_eos": True,
    "data.max_length": 512,
    "data.overlong": "truncate",
    "lora": None,
    "lora.r": 8,
    "lora.alpha": 8,
    "lora.dropout": 0.0,
    "lora.target_modules": ["q_proj"],
    "lora.modules_to_save": ["embed"],
    "lora.use_dora": True,
    "lora.use_rslora": True,
    "train.epochs": 1.0,
    "train.max_steps": 5,
    "train.global_batch_size": 8,
    "train.learning_rate": 1e-4,
    "train.lr_scheduler_type": "linear",
    "train.warmup_steps": 0.1,
    "train.optim": "adamw_8bit",
    "train.weight_decay": 0.1,
    "train.max_grad_norm": 0.5,
    "train.eval_steps": 10,
    "train.seed": 1,
    "best.mode": "max",
    "trl": {},
    "trl.adam_beta2": 0.9,
    "peft": {"bias": "all"},
}
FREE = {
    "run": "s3://runs/b",
    "train.logging_steps": 1,
    "train.token_budget": 2048,
    "train.gradient_checkpointing": True,
    "storage": {"b": {"profile": "p"}},
    "parallel.device": "cpu",
    "parallel.strategy": "ddp",
    "parallel.nproc_per_node": 2,
    "checkpoint.every": "90s",
    "checkpoint.keep": 1,
    "grace": "2m",
    "max_time": "1h",
    "samples.prompts": ["p"],
    "samples.every": 5,
    "samples.max_new_tokens": 1,
    "samples.temperature": 1.0,
    "samples.top_p": 0.5,
    "track": ["wandb"],
}


@pytest.mark.parametrize("path", DECIDING)
def test_a_deciding_field_changes_the_digest(path: str) -> None:
    changed = BASE.replace({path: DECIDING[path]})
    assert trajectory_digest(changed) != trajectory_digest(BASE)
    assert any(line.startswith(path) for line in trajectory_diff(changed, BASE))


@pytest.mark.parametrize("path", FREE)
def test_a_free_field_leaves_the_digest(path: str) -> None:
    changed = BASE.replace({path: FREE[path]})
    assert changed != BASE
    assert trajectory_digest(changed) == trajectory_digest(BASE)
    assert trajectory_diff(changed, BASE) == []


def test_what_decides_is_what_the_design_lists() -> None:
    sections = {path.split(".")[0] for path in trajectory(BASE)}
    assert sections == {"model", "data", "lora", "trl", "hooks", "best", "train"}
    left_out = {f"train.{name}" for name in type(BASE.train).model_fields} - trajectory(BASE).keys()
    assert left_out == {"train.token_budget", "train.gradient_checkpointing", "train.logging_steps"}


def test_every_section_says_whether_it_decides() -> None:
    for name, field in RunConfig.model_fields.items():
        assert [mark for mark in field.metadata if isinstance(mark, Trajectory)], name


def test_the_trajectory_is_flat_json_with_defaults_written_out() -> None:
    flat = trajectory(BASE)
    assert (flat["train.learning_rate"], flat["lora.r"], flat["trl.adam_beta2"]) == (2e-4, 16, 0.95)
    assert (flat["data.train.0.uri"], flat["data.train.1.uri"]) == ("d", "e")
    assert json.loads(json.dumps(flat)) == flat
    assert trajectory(BASE.replace({"lora": None}))["lora"] is None


def test_writing_a_default_out_is_no_change() -> None:
    assert trajectory_digest(BASE.replace({"train.learning_rate": 2e-4})) == trajectory_digest(BASE)
    assert trajectory_digest(BASE.resolved()) == trajectory_digest(BASE)


def test_a_difference_is_told_field_by_field() -> None:
    other = BASE.replace({"train.learning_rate": 1e-4, "data.train": ["d"], "model.tokenizer": "t"})
    assert trajectory_diff(BASE, other) == [
        *(f"data.train.1.{name}: {value} here, absent in run.json" for name, value in _SECOND_SOURCE),
        "model.tokenizer: null here, t in run.json",
        "train.learning_rate: 0.0002 here, 0.0001 in run.json",
    ]


_SECOND_SOURCE = [
    ("columns", "null"),
    ("format", "null"),
    ("loss", "null"),
    ("split", "null"),
    ("uri", "e"),
    ("weight", "null"),
]


def test_auto_accepts_what_the_run_settled_on() -> None:
    settled = BASE.replace({"model.precision": "bf16"})
    assert trajectory_diff(BASE, settled) == []
    assert trajectory_diff(settled, BASE) == ["model.precision: bf16 here, auto in run.json"]
    assert trajectory_diff(BASE, trajectory(settled)) == []


def test_the_schema_is_a_valid_json_schema_that_says_what_the_config_takes() -> None:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid(BASE.to_dict())
    minimal = {"run": "r", "model": {"base": "b"}, "data": {"train": "one"}, "lora": None}
    assert validator.is_valid(minimal)
    assert validator.is_valid({**minimal, "data": {"train": ["one", {"uri": "two"}]}})
    for wrong in (
        {"run": 1},
        {"lora": 3},
        {"more": 1},
        {"data": {}},
        {"checkpoint": {"every": 500}},
        {"train": {"optim": "sgd"}},
    ):
        assert not validator.is_valid({**minimal, **wrong}), wrong
    del minimal["lora"]
    assert not validator.is_valid(minimal)


def test_the_schema_describes_and_marks_every_field() -> None:
    schema = json_schema()
    for field in fields(RunConfig):
        owner = schema if field.model is RunConfig else schema["$defs"][field.model.__name__]
        owner = owner if "properties" in owner else owner["anyOf"][1]
        shown = owner["properties"][field.name]
        assert shown["description"], field.path
        assert shown["trajectory"] is field.decides, field.path


def test_construction_refuses_what_is_no_json() -> None:
    with pytest.raises(ValidationError):
        RunConfig.model_validate({**BASE.to_dict(), "trl": {"lr_scheduler_kwargs": {"a": object()}}})
