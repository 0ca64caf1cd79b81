"""The shape of a model: its tensors by name, read from config.json and the headers of its weights, and what trains.

No weight is read, and nothing of torch: a machine that could not hold the model can plan for it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from job.config import RunConfig
from job.errors import DataError

DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
EMBEDDING = re.compile(r"(?:^|\.)(?:embed\w*|\w*embeddings?|wte|wpe)$")
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output)$")
LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
SIZES = {  # as transformers names it, and as older configs do
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the base's files, as a header describes it."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # as safetensors spells it: BF16, F32, ...

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def bytes(self) -> int:
        return self.count * DTYPE_BYTES.get(self.dtype, 2)


@dataclass(frozen=True)
class Shape:
    """Sizes in elements; what a config does not say follows from the tensors."""

    kind: str  # model_type
    tensors: tuple[Tensor, ...]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int  # rows of the embedding
    softcap: bool  # of the logits: one tanh more is kept
    positions: int | None = None

    @cached_property
    def parameters(self) -> int:
        """All of them, each tied tensor once."""
        return sum(tensor.count for tensor in self.tensors)

    @cached_property
    def stored_bytes(self) -> int:
        return sum(tensor.bytes for tensor in self.tensors)

    @cached_property
    def matrices(self) -> tuple[Tensor, ...]:
        """The weights of linear layers, the head left out: what `all-linear` means."""
        return tuple(t for t in self.tensors if _is_linear(t) and not HEAD.search(t.module))

    @cached_property
    def embeddings(self) -> tuple[Tensor, ...]:
        """What gives tokens their vectors and, where it is not tied, their logits."""
        return tuple(
            t
            for t in self.tensors
            if t.name.endswith(".weight") and (_embeds(t, self.vocabulary) or HEAD.search(t.module))
        )

    @property
    def tied(self) -> bool:
        return not any(HEAD.search(tensor.module) for tensor in self.tensors)

    @cached_property
    def layer(self) -> tuple[Tensor, ...]:
        """The tensors of one layer, the first that has as many as any other."""
        by_number: dict[str, list[Tensor]] = {"": []}
        for tensor in self.tensors:
            if found := LAYER.search(tensor.name):
                by_number.setdefault(tensor.name[: found.end()], []).append(tensor)
        most: list[Tensor] = max(by_number.values(), key=len)
        return tuple(most)


@dataclass(frozen=True)
class Trained:
    """What the optimizer moves: counts of parameters."""

    adapter: int  # of LoRA's matrices
    whole: int  # of modules trained as a whole beside them, as copies; without LoRA of all parameters
    targets: tuple[Tensor, ...]  # the weights that have an adapter
    tensors: tuple[tuple[int, bool], ...]  # (elements, is an embedding) of each trained tensor

    @property
    def count(self) -> int:
        return self.adapter + self.whole


def shape_of(config: Mapping[str, Any], tensors: Iterable[Tensor], uri: str) -> Shape:
    """`config`: the object in config.json. Raises: DataError where it does not say how large the model is."""
    told = {**config, **(config.get("text_config") or {})}
    found = {name: next((told[key] for key in keys if told.get(key)), None) for name, keys in SIZES.items()}
    for name, value in found.items():
        if not isinstance(value, int):
            raise DataError(f"{uri}: config.json has no {SIZES[name][0]}; this base cannot be planned for")
    hidden, layers, heads = (int(found[name] or 0) for name in SIZES)
    listed = tuple(tensors)
    vocabulary = int(told.get("vocab_size") or 0)
    intermediate = told.get("intermediate_size") or told.get("n_inner") or 4 * hidden
    return Shape(
        kind=str(config.get("model_type", "")),
        tensors=listed,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=int(told.get("num_key_value_heads") or heads),
        head_dim=int(told.get("head_dim") or hidden // heads),
        intermediate=int(intermediate[0] if isinstance(intermediate, list) else intermediate),
        vocabulary=max([vocabulary, *(t.shape[0] for t in listed if _embeds(t, vocabulary))]),
        softcap=bool(told.get("final_logit_softcapping")),
        positions=told.get("max_position_embeddings"),
    )


def trained(config: RunConfig, shape: Shape) -> Trained:
    """The parameters that `config` trains, as peft counts them.

    LoRA (Hu et al. 2021) adds r x (inputs + outputs) to a linear layer, DoRA (Liu et al. 2024) one magnitude an output;
    a module trained as a whole is copied beside the frozen one. Added tokens train the embeddings, and the head where
    it is not tied.
    """
    if config.lora is None:
        return Trained(0, shape.parameters, (), tuple((t.count, _is_embedding(t)) for t in shape.tensors))
    lora, targets = config.lora, targets_of(config.lora.target_modules, shape)
    names = set(lora.modules_to_save)
    whole = [t for t in shape.tensors if any(_named(t.module, name) for name in names)]
    if config.model.add_tokens:
        whole += [t for t in shape.embeddings if t not in whole]
    pairs = [(lora.r * side, False) for target in targets for side in target.shape[-2:]]
    if lora.use_dora:
        pairs += [(target.shape[0], False) for target in targets]
    copies = [(tensor.count, _is_embedding(tensor)) for tensor in whole]
    adapter, copied = sum(count for count, _ in pairs), sum(count for count, _ in copies)
    return Trained(adapter, copied, targets, tuple(pairs + copies))


def targets_of(wanted: str | Sequence[str], shape: Shape) -> tuple[Tensor, ...]:
    """As peft matches them: all-linear, a pattern for the whole name, or names that a module's name is or ends in.

    Experts are left out: transformers joins them into tensors that `all-linear` does not reach.
    """
    linear = [tensor for tensor in shape.tensors if _is_linear(tensor) and ".experts." not in tensor.name]
    if wanted == "all-linear":
        return tuple(tensor for tensor in linear if not HEAD.search(tensor.module))
    if isinstance(wanted, str):
        try:
            return tuple(tensor for tensor in linear if re.fullmatch(wanted, tensor.module))
        except re.error:
            return ()
    return tuple(tensor for tensor in linear if any(_named(tensor.module, name) for name in wanted))


def _named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _is_linear(tensor: Tensor) -> bool:
    return len(tensor.shape) == 2 and tensor.name.endswith(".weight") and not _is_embedding(tensor)


def _is_embedding(tensor: Tensor) -> bool:
    return EMBEDDING.search(tensor.module) is not None


def _embeds(tensor: Tensor, vocabulary: int) -> bool:
    return len(tensor.shape) == 2 and _is_embedding(tensor) and tensor.shape[0] >= vocabulary > 0
