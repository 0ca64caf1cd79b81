"""Models of real sizes as headers describe them: no weight exists."""

import json
import struct
from math import prod
from pathlib import Path
from typing import Any

from job.host.shape import Shape, Tensor, shape_of

GEMMA_2B: dict[str, Any] = {
    "model_type": "gemma",
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "vocab_size": 256000,
    "max_position_embeddings": 8192,
}
QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
LLAMA_70B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def decoder(config: dict[str, Any], tied: bool = False) -> list[Tensor]:
    """The tensors of a Llama-like decoder of that config, bf16."""
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    queries, keys = heads * config["head_dim"], config["num_key_value_heads"] * config["head_dim"]
    found = {"model.embed_tokens": (config["vocab_size"], hidden), "model.norm": (hidden,)}
    if not tied:
        found["lm_head"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in (
            ("self_attn.q_proj", (queries, hidden)),
            ("self_attn.k_proj", (keys, hidden)),
            ("self_attn.v_proj", (keys, hidden)),
            ("self_attn.o_proj", (hidden, queries)),
            ("mlp.gate_proj", (inner, hidden)),
            ("mlp.up_proj", (inner, hidden)),
            ("mlp.down_proj", (hidden, inner)),
            ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
        ):
            found[f"model.layers.{layer}.{name}"] = shape
    return [Tensor(f"{name}.weight", shape, "BF16") for name, shape in found.items()]


def shape(config: dict[str, Any], tied: bool = False) -> Shape:
    return shape_of(config, decoder(config, tied), "base")


def write_headers(folder: Path, config: dict[str, Any], tied: bool = False, files: int = 1) -> Path:
    """config.json and files with true headers over data that take no room; several files have an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = decoder(config, tied)
    parts = [tensors[at::files] for at in range(files)]
    names = ["model.safetensors"] if files == 1 else [f"model-{at:05d}.safetensors" for at in range(files)]
    for name, part in zip(names, parts, strict=True):
        header, at = {}, 0
        for tensor in part:
            header[tensor.name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [at, at + tensor.bytes]}
            at += 2 * prod(tensor.shape)
        body = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(body)) + body)
            file.truncate(8 + len(body) + at)
    if files > 1:
        weights = {tensor.name: name for name, part in zip(names, parts, strict=True) for tensor in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}), encoding="utf-8")
    return folder
