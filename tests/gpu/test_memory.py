"""The memory estimate against what the driver counts: LoRA on models of real sizes, with random weights."""

from typing import Any

import numpy as np
import pytest

from job.config import RunConfig
from job.host.devices import visible_gpus
from job.host.estimate import estimate
from job.host.gpus import gpus
from job.host.shape import Tensor, shape_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(visible_gpus() == 0, reason="no CUDA device: there is no /dev/nvidia*"),
]

TOLERANCE = 0.10
SIZES: dict[str, dict[str, Any]] = {  # Qwen3's
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "8B": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("tokens", [2048, 8192])
@pytest.mark.parametrize("size", SIZES)
def test_the_peak_is_within_a_tenth_of_the_estimate(size: str, tokens: int, recompute: bool) -> None:
    import torch
    from transformers import Qwen3Config

    told = {**SIZES[size], "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936}
    architecture = Qwen3Config(**told, tie_word_embeddings=size != "8B", max_position_embeddings=40960)
    config = RunConfig.from_dict(
        {"run": "r", "model": {"base": "b", "precision": "bf16"}, "data": {"train": ["d"]}, "lora": {}}
    )
    model = made(architecture, config, recompute)
    base = {name.replace("base_model.model.", "").replace(".base_layer", ""): p for name, p in model.named_parameters()}
    shape = shape_of(
        architecture.to_dict(),
        [Tensor(name, tuple(p.shape), "BF16") for name, p in base.items() if "lora_" not in name],
        size,
    )
    expected = estimate(config, shape, "single", "none", 1, tokens, recompute)
    if expected.total > 0.9 * min(gpu.memory_bytes for gpu in gpus()):
        pytest.skip(f"{size} with {tokens} tokens takes {expected.total >> 30} GiB, more than this GPU has")
    torch.cuda.reset_peak_memory_stats()
    trained_twice(model, tokens)
    measured = torch.cuda.max_memory_allocated()
    print(f"{size} {tokens} {recompute}: expected {expected.by_name()} = {expected.total}, measured {measured}")
    assert expected.total == pytest.approx(measured, rel=TOLERANCE)


def made(architecture: Any, config: RunConfig, recompute: bool) -> Any:
    """As `load_model` and TRL's trainer make it, but for the weights."""
    import torch
    from accelerate.utils import convert_outputs_to_fp32
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from job.training.model import lora_config

    torch.cuda.empty_cache()
    with torch.device("cuda"):
        model = get_peft_model(
            AutoModelForCausalLM.from_config(architecture, dtype=torch.bfloat16), lora_config(config)
        )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.forward = convert_outputs_to_fp32(model.forward)
    model.train()
    return model


def trained_twice(model: Any, tokens: int) -> None:
    """Two steps, each of two micro-batches of two documents, every token trained."""
    import torch

    from job.training.loss import micro_batch, summed_loss

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    document = np.arange(tokens // 2, dtype=np.int32) % 97 + 3
    batch = micro_batch([(document, document.copy())] * 2, False, torch.device("cuda"))
    for _ in range(2):
        for _ in range(2):
            with torch.autocast("cuda", torch.bfloat16):
                summed_loss(model, batch, skip_untrained=True).backward()
        optimizer.step()
        optimizer.zero_grad()
