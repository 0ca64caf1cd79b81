"""What a config alone lets one assume of a model is near what the model is."""

from typing import Any

import pytest

from job.host.assumed import assumed_tensors
from tests.shapes import GEMMA_2B, LLAMA_70B, QWEN3_8B, decoder


@pytest.mark.parametrize(
    ("config", "tied"),
    [(GEMMA_2B | {"hidden_act": "gelu_pytorch_tanh"}, True), (QWEN3_8B, False), (LLAMA_70B, False)],
    ids=["gemma", "qwen3", "llama"],
)
def test_the_tensors_are_those_of_the_model(config: dict[str, Any], tied: bool) -> None:
    told = {"hidden_act": "silu", **config, "torch_dtype": "bfloat16"}
    expected = {(tensor.name, tensor.shape, tensor.dtype) for tensor in decoder(config, tied)}
    assert set(assumed_tensors(told)) == expected


def test_an_older_model_is_counted_within_a_few_percent() -> None:
    from transformers import AutoModelForCausalLM, GPTNeoConfig

    config = GPTNeoConfig(
        vocab_size=1000, hidden_size=64, num_layers=4, num_heads=4, attention_types=[[["global", "local"], 2]]
    )
    counted = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    assumed = sum(shape[0] * (shape[1:] or (1,))[0] for _, shape, _ in assumed_tensors(config.to_dict()))
    assert assumed == pytest.approx(counted - 64 * config.max_position_embeddings, rel=0.03)


def test_a_config_without_sizes_gives_none() -> None:
    with pytest.raises(KeyError):
        list(assumed_tensors({"model_type": "x"}))
