"""Names of other trainers, and our own names at the wrong level."""

from collections.abc import Callable

import pytest

from job.config import RunConfig
from job.config.marks import fields
from job.config.synonyms import _CALLED, _EXPLAINED, _HINTS

Refusal = Callable[..., list[str]]
YAML = "run: s3://runs/chat\nmodel: {base: b}\ndata: {train: [d]}\nlora: {}\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "per_device_train_batch_size",
            "not needed here; global_batch_size counts rows, the micro-batch is found by itself",
        ),
        ("gradient_accumulation_steps", "not needed here; global_batch_size counts rows"),
        ("micro_batch_size", "not needed here; global_batch_size counts rows"),
        ("num_train_epochs", "here it is train.epochs"),
        ("lora_r", "here it is lora.r"),
        ("cutoff_len", "here it is data.max_length"),
        ("sequence_len", "here it is data.max_length"),
        ("bf16", "here it is model.precision (bf16 or fp32)"),
        ("load_in_4bit", "here it is model.quantize"),
        ("output_dir", "here it is run"),
        ("base_model", "here it is model.base"),
        ("datasets", "here it is data.train"),
        ("val_set_size", "here it is data.eval (a share like 0.2, or a URI)"),
        ("warmup_ratio", "here it is train.warmup_steps (below 1 it is a share of all steps)"),
        ("resume_from_checkpoint", "not needed here; a run goes on by itself"),
    ],
)
def test_a_name_of_another_trainer_is_explained_at_any_level(refusal: Refusal, name: str, said: str) -> None:
    for setting in (name, f"train.{name}", f"lora.{name}", f"data.{name}"):
        (line,) = refusal(YAML, f"{setting}=1")
        assert line.startswith(f"--set {setting}: {said}")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("learning_rate", "does not belong here; it is train.learning_rate"),
        ("data.seed", "does not belong here; it is train.seed"),
        ("train.max_length", "does not belong here; it is data.max_length"),
        ("every", "does not belong here; it is checkpoint.every or samples.every"),
        ("model.adam_beta2", "is a field of TRL's SFTConfig; it is trl.adam_beta2"),
        ("lora.bias", "is a field of peft's LoraConfig; it is peft.bias"),
        ("train.epoch", "unknown field; did you mean epochs?"),
        ("parallel.strategi", "unknown field; did you mean strategy?"),
        ("storage.b.endpont", "unknown field; did you mean endpoint?"),
        ("lerning_rate", "unknown field; did you mean train.learning_rate?"),
        ("checkpoint.zzzz", "unknown field; here are every, keep"),
    ],
)
def test_a_field_at_the_wrong_level_or_misspelt_is_sent_home(refusal: Refusal, setting: str, said: str) -> None:
    (line,) = refusal(YAML, f"{setting}=1")
    assert line == f"--set {setting}: {said}"


def test_every_explanation_names_a_field_that_exists() -> None:
    ours = {field.path for field in fields(RunConfig)}
    assert set(_CALLED) <= ours
    assert set(_HINTS) <= set(_CALLED)


def test_no_synonym_hides_one_of_our_own_names() -> None:
    assert not set(_EXPLAINED) & {field.name for field in fields(RunConfig)}
