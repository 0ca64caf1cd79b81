"""Layout never changes the maths: documents laid end to end, padded, or alone make the same losses and gradients.

Every architecture is a tiny one built from its config on the spot, with weights wide enough that attention matters.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from job.training.loss import MASKED, MicroBatch, Row, masked_row, micro_batch, summed_loss
from job.training.model import accepts, keeps_documents_apart

CPU = torch.device("cpu")
VOCABULARY = 97
DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
GPT: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
WINDOW = 4  # shorter than most documents here

APART: dict[str, Callable[[], Any]] = {
    "gemma": lambda: hf.GemmaConfig(**DECODER, head_dim=8),
    "gemma3": lambda: hf.Gemma3TextConfig(
        **DECODER, head_dim=8, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "llama": lambda: hf.LlamaConfig(**DECODER),
    "qwen2": lambda: hf.Qwen2Config(**DECODER),
    "qwen3": lambda: hf.Qwen3Config(**DECODER, head_dim=8),
    "mistral": lambda: hf.MistralConfig(**DECODER, head_dim=8, sliding_window=WINDOW),
    "gpt-neo": lambda: hf.GPTNeoConfig(
        **GPT,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=WINDOW,
        max_position_embeddings=128,
    ),
    "gpt2": lambda: hf.GPT2Config(**GPT, n_embd=32, n_layer=2, n_head=4, n_positions=128),
}
JOINED: dict[str, Callable[[], Any]] = {  # ALiBi, recurrence, convolution, or positions counted from the mask
    "bloom": lambda: hf.BloomConfig(**GPT, hidden_size=32, n_layer=2, n_head=4),
    "opt": lambda: hf.OPTConfig(
        **GPT,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
    ),
    "mamba": lambda: hf.MambaConfig(**GPT, hidden_size=32, num_hidden_layers=2, state_size=4),
    "lfm2": lambda: hf.Lfm2Config(**DECODER, layer_types=["conv", "full_attention"]),
    "jamba": lambda: hf.JambaConfig(
        **DECODER, num_experts=2, mamba_d_state=4, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False
    ),
}
EAGER_ONLY = ("gpt-neo", "bloom", "mamba")  # transformers has no other attention for them
CASES = [
    pytest.param(name, attention, id=f"{name}-{attention}")
    for name in (*APART, *JOINED)
    for attention in ("eager", "sdpa")
    if attention == "eager" or name not in EAGER_ONLY
]
KNOWN_APART = [case for case in CASES if case.values[0] in APART]


def build(name: str, attention: str) -> Any:
    config = (APART | JOINED)[name]()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        model = hf.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, 0.0, 0.25)
    assert model.config._attn_implementation == attention or name in EAGER_ONLY
    return model.eval()


def documents(*lengths: int) -> list[Row]:
    """Rows whose first third is not trained."""
    random = np.random.default_rng(0)
    rows = []
    for length in lengths:
        ids = random.integers(3, VOCABULARY, length).astype(np.int32)
        labels = ids.copy()
        labels[: length // 3] = MASKED
        rows.append((ids, labels))
    return rows


def losses_and_gradients(model: Any, batches: Sequence[MicroBatch]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = summed_loss(model, batch, accepts(model, "logits_to_keep"))
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_maths(model: Any, one: Sequence[MicroBatch], other: Sequence[MicroBatch]) -> None:
    loss, gradients = losses_and_gradients(model, one)
    other_loss, other_gradients = losses_and_gradients(model, other)
    assert loss > 1 and other_loss == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == other_gradients.keys() and gradients
    # A parameter whose gradient is zero but for rounding (the bias of keys) is measured by the largest of all.
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        difference = float((gradient - other_gradients[name]).abs().max())
        assert difference <= 1e-5 * max(float(gradient.abs().max()), 0.1 * largest), name


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_documents_laid_out_as_the_probe_says_lose_and_learn_what_they_do_alone(name: str, attention: str) -> None:
    model = build(name, attention)
    padded = not keeps_documents_apart(model, CPU)
    rows = documents(9, 1, 14, 2, 31)
    alone = [micro_batch([row], padded, CPU) for row in rows]
    assert_same_maths(model, alone, [micro_batch(rows, padded, CPU)])


@pytest.mark.parametrize(("name", "attention"), KNOWN_APART)
def test_padded_and_padding_free_micro_batches_are_the_same_maths(name: str, attention: str) -> None:
    rows = documents(9, 1, 14, 2, 31)
    assert_same_maths(build(name, attention), [micro_batch(rows, True, CPU)], [micro_batch(rows, False, CPU)])


@pytest.mark.parametrize("name", APART)
def test_an_adapter_learns_the_same_in_every_layout(name: str) -> None:
    targets = ["c_attn"] if name == "gpt2" else ["q_proj", "v_proj"]
    lora = LoraConfig(r=4, target_modules=targets, init_lora_weights=False, fan_in_fan_out=name == "gpt2")
    model = get_peft_model(build(name, "eager"), lora).eval()
    rows = documents(9, 14, 31)
    assert keeps_documents_apart(model, CPU)
    assert_same_maths(model, [micro_batch([row], False, CPU) for row in rows], [micro_batch(rows, False, CPU)])


def contamination(model: Any, batch: MicroBatch, at: slice) -> float:
    """The largest gradient of the batch's loss at the embeddings of the tokens `at`."""
    kept = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = model.get_input_embeddings().register_forward_hook(keep)
    try:
        summed_loss(model, batch, accepts(model, "logits_to_keep")).backward()
    finally:
        hook.remove()
    assert kept[0].grad is not None
    return float(kept[0].grad[0, at].abs().max())


def prompt_then_document() -> MicroBatch:
    """An untrained document of 20 tokens, then a trained one of 40: both longer than what the probe looks at."""
    (first, _), second = documents(20, 40)
    batch = micro_batch([(first, np.full_like(first, MASKED)), second], False, CPU)
    assert int((batch.targets[0, :20] != MASKED).sum()) == 0
    return batch


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_a_probe_that_says_apart_is_never_wrong(name: str, attention: str) -> None:
    model = build(name, attention)
    apart = keeps_documents_apart(model, CPU)
    assert apart == (name in APART)
    if not accepts(model, "position_ids"):
        return  # cannot be told where a document begins
    assert (contamination(model, prompt_then_document(), slice(0, 20)) == 0.0) == apart


def test_the_probe_reads_a_model_as_it_is_trained_and_leaves_it_so() -> None:
    model = build("llama", "sdpa").train()
    assert keeps_documents_apart(model, CPU) and model.training
    assert keeps_documents_apart(build("llama", "sdpa").to(torch.bfloat16), CPU)


def test_the_probe_computes_as_training_does_where_a_bf16_base_has_modules_in_fp32() -> None:
    model = build("llama", "sdpa").to(torch.bfloat16)
    model.lm_head.float()  # as an adapter's modules_to_save are
    assert keeps_documents_apart(model, CPU, torch.bfloat16)


def test_an_attention_mask_of_ones_would_join_documents_and_this_measure_sees_it() -> None:
    batch = prompt_then_document()
    joined = MicroBatch({**batch.inputs, "attention_mask": torch.ones_like(batch.targets)}, batch.targets, batch.kept)
    assert contamination(build("llama", "sdpa"), joined, slice(0, 20)) > 0.0


def test_the_first_token_of_a_document_is_never_a_target() -> None:
    rows = [(ids, ids.copy()) for ids, _ in documents(3, 5)]
    batch = micro_batch(rows, False, CPU)
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [[*rows[0][0][1:], MASKED, *rows[1][0][1:], MASKED]]
    assert micro_batch(rows, True, CPU).targets.tolist() == [
        [*rows[0][0][1:], MASKED, MASKED, MASKED],
        [*rows[1][0][1:], MASKED],
    ]


@pytest.mark.parametrize("padded", [False, True])
def test_a_filler_row_takes_part_and_changes_nothing(padded: bool) -> None:
    model = build("llama", "sdpa")
    loss, gradients = losses_and_gradients(model, [micro_batch([masked_row(documents(9)[0])], padded, CPU)])
    assert loss == 0.0 and set(gradients) == {name for name, _ in model.named_parameters()}
    assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients.values())
