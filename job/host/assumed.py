"""The tensors of a decoder as its config alone lets one assume: for weights that bring no headers."""

from collections.abc import Iterator, Mapping
from typing import Any

Assumed = tuple[str, tuple[int, ...], str]

GATED = ("silu", "swish", "gelu_pytorch_tanh")  # the activations of gated MLPs
NEVER_TIED = {"llama", "mistral", "qwen2", "qwen3", "phi3", "mixtral"}  # unless their config says so


def assumed_tensors(config: Mapping[str, Any]) -> Iterator[Assumed]:
    """(name, shape, type): attention, an MLP with a gate or without, two norms a layer; biases are left out.

    Raises: KeyError where the config does not say how large the model is.
    """
    told = {**config, **(config.get("text_config") or {})}

    def size(*names: str) -> int:
        return int(next(told[name] for name in names if told.get(name)))

    try:
        hidden, layers = size("hidden_size", "n_embd", "d_model"), size("num_hidden_layers", "n_layer", "num_layers")
        heads, vocabulary = size("num_attention_heads", "n_head", "num_heads"), size("vocab_size")
    except StopIteration:
        raise KeyError("sizes") from None
    inner = int(told.get("intermediate_size") or told.get("n_inner") or 4 * hidden)
    width = int(told.get("head_dim") or hidden // heads)
    queries, keys = heads * width, int(told.get("num_key_value_heads") or heads) * width
    gated = str(told.get("hidden_act") or told.get("activation_function") or "").startswith(GATED)
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        **({"mlp.gate_proj": (inner, hidden)} if gated else {}),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    kind = str(told.get("torch_dtype") or told.get("dtype") or "float32")
    dtype = {"bfloat16": "BF16", "float16": "F16"}.get(kind, "F32")
    yield "model.embed_tokens.weight", (vocabulary, hidden), dtype
    yield "model.norm.weight", (hidden,), dtype
    if not told.get("tie_word_embeddings", told.get("model_type") not in NEVER_TIED):
        yield "lm_head.weight", (vocabulary, hidden), dtype
    for layer in range(layers):
        for name, shape in shapes.items():
            yield f"model.layers.{layer}.{name}.weight", shape, dtype
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{name}.weight", (hidden,), dtype
