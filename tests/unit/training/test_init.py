"""A start from an adapter is that adapter, to the last bit; a start from weights is those weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from job.config import RunConfig
from job.errors import ConfigError, DataError
from job.training.model import load_model
from tests import standins

IDS = torch.arange(5, 25)[None, :]
TARGETS = ["q_proj", "v_proj"]
LORA: dict[str, Any] = {"r": 4, "alpha": 16, "dropout": 0.1, "target_modules": TARGETS}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return standins.gemma(tmp_path_factory.mktemp("init") / "base")


def config(lora: dict[str, Any] | None = LORA, seed: int = 42) -> RunConfig:
    tree = {"run": "/runs/one", "model": {"base": "/base", "init": "/init", "precision": "fp32"}}
    return RunConfig.from_dict({**tree, "data": {"train": ["/d.jsonl"]}, "lora": lora, "train": {"seed": seed}})


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


Trained = Callable[..., Path]


@pytest.fixture
def trained(base: Path, tmp_path: Path) -> Trained:
    """trained(**fields): the folder of an adapter that peft saved; its every tensor differs from a fresh one's."""

    def made(**fields: Any) -> Path:
        torch.manual_seed(1)
        wanted: dict[str, Any] = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 16, "target_modules": TARGETS}
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**wanted | fields))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(std=0.2)
        model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    return made


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        ({"use_dora": True}, {"use_dora": True}),
        ({"modules_to_save": ["norm"]}, {"modules_to_save": ["norm"]}),
        ({"target_modules": "all-linear"}, {"target_modules": "all-linear"}),
    ],
    ids=str,
)
def test_the_model_starts_as_the_one_the_adapter_was_saved_from(
    base: Path, trained: Trained, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    folder = trained(**theirs)
    saved = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    started = load_model(base, config({**LORA, **ours}), "cpu", folder)
    fresh = load_model(base, config({**LORA, **ours}), "cpu")
    assert torch.equal(logits(started), logits(saved))
    assert not torch.equal(logits(started), logits(fresh))
    tensors = {name: tensor for name, tensor in started.named_parameters() if tensor.requires_grad}
    assert tensors.keys() == {name for name, tensor in fresh.named_parameters() if tensor.requires_grad}
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())


def test_the_seed_does_not_show_in_a_start_from_an_adapter(base: Path, trained: Trained) -> None:
    folder = trained()
    one, other = (load_model(base, config(seed=seed), "cpu", folder) for seed in (1, 2))
    for (name, tensor), (_, same) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(tensor, same), name


@pytest.mark.parametrize("ours", [["q_proj"], ["q_proj", "v_proj", "o_proj"], "all-linear"], ids=str)
def test_an_adapter_for_other_modules_is_refused_whole(base: Path, trained: Trained, ours: Any) -> None:
    with pytest.raises(ConfigError, match=r"set lora.target_modules and lora.modules_to_save as it has them"):
        load_model(base, config({**LORA, "target_modules": ours}), "cpu", trained())


def test_an_adapter_of_another_shape_is_refused_with_both(base: Path, trained: Trained) -> None:
    with pytest.raises(DataError, match=r"has shape \[4, \d+\] in /init and \[8, \d+\] here"):
        load_model(base, config({**LORA, "r": 8}), "cpu", trained())


def test_an_adapter_that_cannot_be_read_is_never_a_start_from_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/init/adapter_model.safetensors cannot be read"):
        load_model(base, config(), "cpu", tmp_path / "none")


def test_full_weights_are_those_of_the_start_not_of_the_base(base: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    model.to(torch.bfloat16).save_pretrained(tmp_path / "weights")
    started = load_model(base, config(None), "cpu", tmp_path / "weights")
    weights = AutoModelForCausalLM.from_pretrained(tmp_path / "weights", dtype=torch.float32)
    assert torch.equal(logits(started), logits(weights))
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in started.parameters())


def test_weights_of_another_architecture_do_not_fit_the_base(base: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model.init /init (cannot be loaded|lacks)"):
        load_model(base, config(None), "cpu", standins.gpt_neo(tmp_path / "other"))
