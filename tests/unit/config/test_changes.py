"""Which changes a run can go on under, and the settings that say them."""

from typing import Any

import pytest

from job.config import RunConfig, trajectory, with_sets
from job.config.changes import needs_new_start, needs_other_rows, next_folder, reorders_rows, settings
from job.config.trajectory import changed
from job.training.batches import Schedule

PLAIN = {
    "run": "s3://runs/chat",
    "model": {"base": "s3://models/base"},
    "data": {"train": ["s3://data/chat.jsonl"]},
    "lora": {},
}
FULL = {**PLAIN, "lora": None}


def config(tree: dict[str, Any] = PLAIN, **values: object) -> RunConfig:
    return RunConfig.from_dict(tree).replace({path.replace("__", "."): value for path, value in values.items()})


@pytest.mark.parametrize(
    "change",
    [
        {"model__base": "s3://models/other"},
        {"model__init": "s3://runs/other"},
        {"lora__r": 8},
        {"lora__alpha": 8},
        {"lora__target_modules": ["q_proj"]},
        {"lora__modules_to_save": ["lm_head"]},
        {"lora__use_dora": True},
        {"lora__use_rslora": True},
        {"lora": None},
        {"peft": {"bias": "all"}},
        {"train__optim": "adamw_8bit"},
    ],
    ids=str,
)
def test_what_the_tensors_or_the_optimizers_state_do_not_fit_needs_a_new_start(change: dict[str, object]) -> None:
    assert needs_new_start(changed(config(**change), config()))


@pytest.mark.parametrize(
    "change",
    [
        {"lora__dropout": 0.2},
        {"model__precision": "bf16"},
        {"model__attn_implementation": "eager"},
        {"model__tokenizer": "s3://models/other"},
        {"train__learning_rate": 1e-3},
        {"train__epochs": 5.0},
        {"train__max_steps": 7},
        {"train__seed": 7},
        {"best__patience": 2, "data__eval": 0.1},
        {"trl": {"adam_beta1": 0.8}},
        {"data__train": ["s3://data/other.jsonl"]},
    ],
    ids=str,
)
def test_everything_else_is_gone_on_with(change: dict[str, object]) -> None:
    paths = changed(config(**change), config())
    assert paths and needs_new_start(paths) == []


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"data__max_length": 512}, True),
        ({"data__eval": 0.1}, True),
        ({"data__train": ["s3://data/chat.jsonl", "s3://data/more.jsonl"]}, True),
        ({"model__tokenizer": "s3://models/other"}, True),
        ({"model__chat_template": "chatml"}, True),
        ({"train__seed": 7}, False),
        ({"train__global_batch_size": 8}, False),
        ({"train__learning_rate": 1.0}, False),
    ],
    ids=str,
)
def test_rows_are_prepared_anew_where_a_field_that_decides_them_changed(change: dict[str, object], anew: bool) -> None:
    ours = config(**change)
    assert bool(needs_other_rows(changed(ours, config()), ours, config())) is anew


def test_another_seed_draws_another_share_for_evaluation() -> None:
    before, after = config(data__eval=0.1), config(data__eval=0.1, train__seed=7)
    assert needs_other_rows(changed(after, before), after, before) == ["train.seed"]


def test_the_same_step_means_other_rows_under_another_seed_or_batch() -> None:
    paths = changed(config(train__seed=7, train__global_batch_size=8, train__epochs=1.0), config())
    assert reorders_rows(paths) == ["train.global_batch_size", "train.seed"]


@pytest.mark.parametrize(
    "change",
    [
        {"train__learning_rate": 1e-3, "train__lr_scheduler_type": "linear"},
        {"train__epochs": 0.5, "train__max_steps": 10},
        {"trl": {"adam_beta1": 0.8, "lr_scheduler_kwargs": {"min_lr": 1e-6}}},
        {"data__train": ["s3://data/a b's.jsonl", {"uri": "s3://data/c.jsonl", "loss": "all"}]},
        {"data__columns": {"prompt": "{text}: ", "completion": "true"}},
        {"data__eval": "s3://data/eval.jsonl"},
        {"lora__target_modules": ["q_proj", "v_proj"], "model__tokenizer": "hf://org/name@main"},
        {"model__chat_template": "chatml"},
        {"best__patience": 3, "data__eval": 0.25},
    ],
    ids=str,
)
def test_the_settings_make_the_other_config_of_the_one(change: dict[str, object]) -> None:
    before, after = config(), config(**change)
    made = with_sets(before, settings(after, before.to_dict(), changed(after, before)))
    assert trajectory(made) == trajectory(after) != trajectory(before)


def test_the_settings_take_back_what_was_given() -> None:
    before, after = config(trl={"adam_beta1": 0.8}, train__learning_rate=1.0), config()
    made = with_sets(before, settings(after, before.to_dict(), changed(after, before)))
    assert trajectory(made) == trajectory(after)


@pytest.mark.parametrize(
    ("run", "other"),
    [
        ("s3://runs/chat", "s3://runs/chat-2"),
        ("s3://runs/chat-2/", "s3://runs/chat-3"),
        ("/runs/chat-9", "/runs/chat-10"),
        ("runs/gemma-20260101", "runs/gemma-20260101-2"),  # a date is no count
        ("runs/-1", "runs/-1-2"),
    ],
)
def test_the_next_folder_counts_on(run: str, other: str) -> None:
    assert next_folder(run) == other


@pytest.mark.parametrize("fields", [{}, {"epochs": 0.7}, {"epochs": 2.5, "global_batch_size": 7}, {"max_steps": 3}])
def test_the_steps_of_a_run_are_those_of_its_schedule(fields: dict[str, Any]) -> None:
    for rows in (1, 10, 64, 701):
        train = config(**{f"train__{name}": value for name, value in fields.items()}).train
        schedule = Schedule(rows, train.global_batch_size, train.epochs, train.max_steps, train.seed)
        assert train.steps(rows) == schedule.steps


def test_full_fine_tuning_has_no_adapter_to_keep() -> None:
    assert needs_new_start(changed(config(FULL, train__epochs=1.0), config(FULL))) == []
