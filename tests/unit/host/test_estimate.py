"""The memory estimate against what training really holds, counted tensor by tensor, on small models of real kinds."""

from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.host.estimate import checkpoint_bytes, estimate, optimizer_bytes
from job.host.shape import Shape, trained
from tests.accounting import counted, random_base
from tests.shapes import GEMMA_2B, QWEN3_8B
from tests.shapes import shape as shape_of_size

TOKENS = 256
# Of what passes through. Where layers are recomputed the fullest moment lies in one layer, and the order in which torch
# frees there counts more.
KEPT_TOLERANCE, RECOMPUTED_TOLERANCE = 0.05, 0.12
SIZES: dict[str, Any] = {
    "vocab_size": 1500,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
KINDS = ["LlamaConfig", "GemmaConfig", "Qwen3Config"]
LORA = {"r": 8, "dropout": 0.05}


@pytest.fixture(scope="module", params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shape]:
    import transformers

    folder = tmp_path_factory.mktemp("base")
    return folder, random_base(folder, getattr(transformers, request.param)(**SIZES))


def run_config(lora: dict[str, Any] | None, precision: str = "bf16", **more: Any) -> RunConfig:
    return RunConfig.from_dict(
        {"run": "r", "model": {"base": "b", "precision": precision}, "data": {"train": ["d"]}, "lora": lora, **more}
    )


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    ("lora", "precision"),
    [(LORA, "bf16"), (LORA | {"dropout": 0.0}, "fp32"), (None, "bf16"), (None, "fp32")],
    ids=["lora-bf16", "lora-fp32", "full-bf16", "full-fp32"],
)
def test_what_training_holds_is_what_was_estimated(
    base: tuple[Path, Shape], lora: dict[str, Any] | None, precision: str, recompute: bool
) -> None:
    folder, shape = base
    config = run_config(lora, precision)
    expected = estimate(config, shape, "single", "none", 1, TOKENS, recompute, "cpu")
    held = counted(folder, config, TOKENS, recompute)
    assert (expected.weights + expected.adapter, expected.gradients, expected.optimizer) == (
        held.parameters,
        held.gradients,
        held.optimizer,
    )
    passing = expected.activations + expected.logits + expected.buffers
    assert passing == pytest.approx(held.passing, rel=RECOMPUTED_TOLERANCE if recompute else KEPT_TOLERANCE)


def of_size(config: RunConfig, strategy: str, ranks: int, **more: Any) -> Any:
    told = {"offload": "none", "token_budget": 4096, "gradient_checkpointing": False, **more}
    return estimate(config, shape_of_size(QWEN3_8B), strategy, world_size=ranks, **told)


def test_more_tokens_take_more_and_recomputing_takes_less() -> None:
    config = run_config(LORA)
    few, many = (of_size(config, "single", 1, token_budget=tokens) for tokens in (2048, 4096))
    assert few.activations < many.activations and many.logits == 2 * few.logits
    recomputed = of_size(config, "single", 1, gradient_checkpointing=True)
    assert recomputed.activations < many.activations / 10 and recomputed.weights == many.weights


def test_zero_shards_what_it_says_and_keeps_16_bytes_a_trained_parameter() -> None:
    """Of full fine-tuning: fp32 master and two moments, and the gradient that the step is taken with."""
    config, count = run_config(None), shape_of_size(QWEN3_8B).parameters
    by_stage = [of_size(config, f"zero{stage}", 8) for stage in (1, 2, 3)]
    assert [parts.optimizer for parts in by_stage] == [16 * -(-count // 8)] * 3
    assert [parts.gradients for parts in by_stage] == [4 * count, 4 * -(-count // 8), 4 * -(-count // 8)]
    assert [parts.weights for parts in by_stage] == [2 * count, 2 * count, 2 * count // 8]


def test_four_bit_weights_take_about_a_quarter_of_those_in_bf16() -> None:
    whole = of_size(run_config(LORA), "single", 1)
    config = RunConfig.from_dict(
        {**run_config(LORA).to_dict(), "model": {"base": "b", "precision": "bf16", "quantize": "nf4"}}
    )
    packed = of_size(config, "single", 1)
    assert 0.25 < packed.weights / whole.weights < 0.4  # embeddings and the head stay as they are


def test_eight_bit_adam_keeps_codes_scales_and_small_tensors_in_fp32() -> None:
    config = run_config({**LORA, "r": 16}, train={"optim": "adamw_8bit"})
    found = trained(config, shape_of_size(QWEN3_8B))
    share = optimizer_bytes(config, found) / found.count
    assert share == pytest.approx(2 + 8 / 256, rel=0.01)


def test_a_checkpoint_is_the_trained_tensors_and_both_moments() -> None:
    shape = shape_of_size(GEMMA_2B, tied=True)
    assert checkpoint_bytes(run_config(None), shape) == 12 * shape.parameters
    assert checkpoint_bytes(run_config({"r": 16}), shape) == 12 * trained(run_config({"r": 16}), shape).count
