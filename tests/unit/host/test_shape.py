"""A model's shape from its headers, and what of it trains, counted as peft counts."""

from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.errors import DataError
from job.host.shape import Tensor, shape_of, trained
from tests.shapes import GEMMA_2B, QWEN3_8B, decoder, shape


def run_config(lora: dict[str, Any] | None, **model: Any) -> RunConfig:
    return RunConfig.from_dict({"run": "r", "model": {"base": "b", **model}, "data": {"train": ["d"]}, "lora": lora})


def test_the_counts_are_those_that_the_models_are_published_with() -> None:
    gemma, qwen = shape(GEMMA_2B, tied=True), shape(QWEN3_8B)
    assert gemma.parameters == 2_506_172_416
    assert gemma.tied and not qwen.tied
    assert 8.1e9 < qwen.parameters < 8.2e9
    assert (gemma.heads, gemma.kv_heads, gemma.head_dim, len(gemma.layer)) == (8, 1, 256, 9)


def test_sizes_are_found_under_a_multimodal_models_text_config_and_under_old_names() -> None:
    inner = shape_of({"model_type": "gemma3", "text_config": GEMMA_2B}, decoder(GEMMA_2B, tied=True), "b")
    assert inner.hidden == 2048
    old = shape_of({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257}, [], "b")
    assert (old.hidden, old.layers, old.head_dim, old.intermediate) == (768, 12, 64, 3072)


def test_a_config_without_sizes_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"^base: config\.json has no num_hidden_layers"):
        shape_of({"hidden_size": 8, "num_attention_heads": 2}, [], "base")


@pytest.mark.parametrize(
    ("lora", "model"),
    [
        ({"r": 8}, {}),
        ({"r": 8, "target_modules": ["q_proj", "down_proj"]}, {}),
        ({"r": 4, "target_modules": r".*self_attn\.(q|k)_proj"}, {}),
        ({"r": 8, "use_dora": True}, {}),
        ({"r": 8, "modules_to_save": ["lm_head"]}, {}),
        ({"r": 8, "modules_to_save": ["embed_tokens", "lm_head"]}, {}),
        (None, {}),
    ],
    ids=["all-linear", "list", "pattern", "dora", "head", "embeddings", "full"],
)
def test_as_many_parameters_train_as_peft_makes(
    tmp_path: Path, lora: dict[str, Any] | None, model: dict[str, Any]
) -> None:
    from transformers import LlamaConfig

    from job.training.model import load_model
    from tests.accounting import random_base

    small = LlamaConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    found = random_base(tmp_path, small)
    config = run_config(lora, precision="fp32", **model)
    loaded = load_model(tmp_path, config, "cpu")
    assert trained(config, found).count == sum(p.numel() for p in loaded.parameters() if p.requires_grad)


def test_experts_get_no_adapter_of_all_linear() -> None:
    tensors = [*decoder(GEMMA_2B, tied=True), Tensor("model.layers.0.mlp.experts.0.up_proj.weight", (64, 64), "BF16")]
    found = trained(run_config({"r": 8}), shape_of(GEMMA_2B, tensors, "b"))
    assert not any("experts" in target.name for target in found.targets)
    assert len(found.targets) == 7 * 18
