"""Names under trl and peft: passed on, or refused; held against the installed packages."""

import ast
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

import job
from job.config import RunConfig
from job.config.synonyms import explained
from job.config.trl_fields import (
    PEFT_OWN,
    PEFT_PASSED,
    PEFT_WITHOUT_EFFECT,
    TRL_OWN,
    TRL_PASSED,
    TRL_WITHOUT_EFFECT,
    lora_config_fields,
    sft_config_fields,
)

Load = Callable[..., RunConfig]
Refusal = Callable[..., list[str]]
YAML = "run: s3://runs/chat\nmodel: {base: b}\ndata: {train: [d]}\nlora: {}\n"


def test_each_field_of_the_installed_sft_config_is_passed_on_or_refused_with_a_reason() -> None:
    sorted_out = TRL_PASSED | TRL_OWN.keys() | TRL_WITHOUT_EFFECT.keys()
    assert [name for name in sft_config_fields() if name not in sorted_out and not explained(name)] == []
    assert len(sft_config_fields()) > 100


def test_each_field_of_the_installed_lora_config_is_passed_on_or_refused_with_a_reason() -> None:
    sorted_out = PEFT_PASSED | PEFT_OWN.keys() | PEFT_WITHOUT_EFFECT.keys()
    assert [name for name in lora_config_fields() if name not in sorted_out and not explained(name)] == []
    assert len(lora_config_fields()) > 30


def test_no_field_is_sorted_twice() -> None:
    assert not TRL_PASSED & TRL_WITHOUT_EFFECT.keys() and not TRL_PASSED & TRL_OWN.keys()
    assert not PEFT_PASSED & PEFT_WITHOUT_EFFECT.keys() and not PEFT_PASSED & PEFT_OWN.keys()
    assert [name for name in TRL_PASSED | PEFT_PASSED if explained(name)] == []


def set_by(module: str, kind: str) -> set[str]:
    """The keywords that this module gives to its one call of `kind`."""
    tree = ast.parse((Path(job.__file__).parent / module).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == kind]
    (call,) = calls
    return {keyword.arg for keyword in call.keywords if keyword.arg}


def test_no_field_is_passed_on_that_the_ranks_set_themselves() -> None:
    assert TRL_PASSED & set_by("training/arguments.py", "SFTConfig") == set()
    assert PEFT_PASSED & set_by("training/model.py", "PeftLoraConfig") == set()


@pytest.mark.slow
def test_the_names_read_from_the_sources_are_those_of_the_classes() -> None:
    from peft import LoraConfig
    from trl import SFTConfig

    assert {field.name for field in dataclasses.fields(SFTConfig) if field.init} == sft_config_fields()
    assert {field.name for field in dataclasses.fields(LoraConfig) if field.init} == lora_config_fields()


def test_other_fields_of_trl_and_peft_are_passed_on(load: Load) -> None:
    config = load(
        YAML,
        "trl={adam_beta2: 0.95, lr_scheduler_kwargs: {num_cycles: 2}}",
        "peft={bias: lora_only, rank_pattern: {q: 4}}",
    )
    assert config.trl == {"adam_beta2": 0.95, "lr_scheduler_kwargs": {"num_cycles": 2}}
    assert config.peft == {"bias": "lora_only", "rank_pattern": {"q": 4}}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("trl.learning_rate", "sft-job owns it; write train.learning_rate"),
        ("trl.per_device_train_batch_size", "sft-job owns it; not needed here; global_batch_size counts rows"),
        ("trl.gradient_checkpointing", "sft-job owns it; write train.gradient_checkpointing"),
        ("trl.bf16", "sft-job owns it; here it is model.precision"),
        ("trl.deepspeed", "sft-job owns it; here it is parallel.strategy"),
        ("trl.packing", "sft-job owns it; not needed here; rows are packed"),
        ("trl.report_to", "sft-job owns it; here it is track"),
        ("trl.dataloader_num_workers", "sft-job owns it; not needed here; the order of rows"),
        ("trl.push_to_hub", "sft-job owns it; not needed here"),
        ("trl.label_smoothing_factor", "would have no effect here: our loss and batching go past it"),
        ("trl.loss_type", "would have no effect here"),
        ("trl.use_liger_kernel", "would have no effect here"),
        ("trl.neftune_noise_alpha", "would have no effect here"),
        ("trl.adam_beta3", "is no field of SFTConfig; did you mean adam_beta"),
        ("peft.r", "sft-job owns it; write lora.r"),
        ("peft.task_type", "would have no effect here: sft-job sets it"),
        ("peft.eva_config", "it changes the base's weights"),
        ("peft.rank_patern", "is no field of LoraConfig; did you mean rank_pattern?"),
    ],
)
def test_what_sft_job_owns_or_goes_past_is_refused(refusal: Refusal, setting: str, said: str) -> None:
    (line,) = refusal(YAML, f"{setting}=1")
    assert line.startswith(f"--set {setting}: ") and said in line


def test_an_initialisation_that_changes_the_base_is_refused(refusal: Refusal) -> None:
    (line,) = refusal(YAML, "peft.init_lora_weights=pissa")
    assert "pissa is refused: it changes the base's weights" in line


def test_peft_without_lora_is_refused(refusal: Refusal) -> None:
    (line,) = refusal(YAML, "lora=null", "peft.bias=none")
    assert "has no effect without lora" in line
