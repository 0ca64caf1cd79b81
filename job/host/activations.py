"""What the forward pass keeps for the backward pass, in bytes, counted operation by operation.

The method is Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022), section 4,
where a GPT layer keeps s b h (34 + 5 a s / h) bytes. What is counted here is today's layer instead: RMSNorm in fp32,
rotary positions, a gated MLP, scaled-dot-product attention that keeps no scores, autocast's own copies of what linear
layers read, and LoRA, which keeps its inputs although the weights beside it are frozen. A test holds the figures
against every tensor that torch keeps.
"""

from dataclasses import dataclass

from job.config import RunConfig
from job.host.shape import Shape, Tensor, Trained

READ_TOGETHER = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "mlp", "up_proj": "mlp"}
EAGER_ONLY = {"gpt_neo"}  # transformers has no other attention for them
SDPA = ("auto", "sdpa", "eager")  # with a mask of tokens x tokens, which tells documents apart


@dataclass(frozen=True)
class Computing:
    """How numbers are held while computing: bytes of an element."""

    compute: int  # what linear layers and attention read: 2 in bf16, 4 in fp32
    stream: int  # what passes from layer to layer
    cast: bool  # trained weights are fp32 and autocast copies them, and what they read, to bf16
    dropped: int  # dropout's mask: a byte on a GPU; on the CPU a number as wide as what is dropped


@dataclass(frozen=True)
class Kept:
    """Bytes on one GPU at the fullest moment of a micro-batch."""

    layers: int
    logits: int

    @property
    def total(self) -> int:
        return self.layers + self.logits


def kept(
    config: RunConfig, shape: Shape, parts: Trained, computing: Computing, tokens: int, checkpointing: bool
) -> Kept:
    """Of a micro-batch of `tokens`, every one of them trained.

    The fullest moment is the loss's, with all layers and the logits; or, where the vocabulary is small or layers are
    recomputed, the last layer's backward pass.
    """
    layer = layer_bytes(config, shape, parts, computing, tokens)
    ends = 4 * shape.hidden * tokens  # the last norm's input
    mask = tokens * tokens if config.model.attn_implementation in SDPA else 0  # one byte each, made once
    passing = passing_bytes(config, shape, parts, computing, tokens)
    logits = logit_bytes(config, shape, computing, tokens)
    if not checkpointing:
        layers = shape.layers * layer + ends + mask
        return max(Kept(layers, logits), Kept(layers + passing, 0), key=lambda one: one.total)
    inputs = shape.layers * computing.stream * shape.hidden * tokens + ends + mask
    return max(Kept(inputs, logits), Kept(inputs + layer + passing, 0), key=lambda one: one.total)


def logit_bytes(config: RunConfig, shape: Shape, computing: Computing, tokens: int) -> int:
    """At the start of the backward pass: log-softmax, its gradient and the logits' own, fp32 [tokens, vocabulary].

    A soft cap keeps its tanh beside them. A head that trains keeps its input, and its gradient is made when two of the
    three are gone. job/training/loss.py computes logits only where a token is trained.
    """
    each = tokens * shape.vocabulary
    size = each * (12 + (computing.compute if shape.softcap else 0))
    if config.lora is not None:
        return size
    return max(size, each * (4 + computing.compute) + head_gradient(shape)) + computing.compute * shape.hidden * tokens


def head_gradient(shape: Shape) -> int:
    return 4 * shape.vocabulary * shape.hidden


def layer_bytes(config: RunConfig, shape: Shape, parts: Trained, computing: Computing, tokens: int) -> int:
    """What one layer keeps."""
    full, wide = config.lora is None, computing.compute
    targets = {tensor.name for tensor in parts.targets}
    per_token = 0
    for tensor in shape.layer:
        if len(tensor.shape) == 1 and ("norm" in tensor.name or ".ln_" in tensor.name):
            width = _norm_width(tensor, shape)
            per_token += 4 * width + (computing.stream * width if full else 0)  # its input in fp32, and normalised
    for group in _groups(shape.layer):
        reading = [tensor for tensor in group if full or tensor.name in targets]
        per_token += _inputs(config, shape, reading, computing)
    queries = shape.heads * shape.head_dim
    per_token += 4 * queries * wide + 4 * shape.heads  # q, k, v (repeated for each head), the output; log-sum-exp
    per_token += 3 * shape.intermediate * wide  # gate, its activation, up; without a gate the parts of a plain GELU
    return per_token * tokens + tokens * tokens * _pair_bytes(config, shape, wide)


def _pair_bytes(config: RunConfig, shape: Shape, wide: int) -> int:
    """What a layer keeps for each pair of tokens: scores of each head after softmax, in fp32 and as they are read; or,
    with scaled-dot-product attention, only the mask that tells documents apart, as numbers."""
    if config.model.attn_implementation == "eager" or shape.kind in EAGER_ONLY:
        return shape.heads * (4 + (wide if wide < 4 else 0))
    return wide if config.model.attn_implementation in SDPA else 0


def passing_bytes(config: RunConfig, shape: Shape, parts: Trained, computing: Computing, tokens: int) -> int:
    """What lives for a moment beside what one layer keeps: gradients on their way through its MLP and the stream.

    LoRA reads in fp32 what it then casts, so gradients come back to it in both types. DoRA multiplies its matrices out
    to find the norms of its columns, from a unit matrix as wide as the input.
    """
    wide, inner = computing.compute, computing.compute
    if computing.cast:
        inner += wide if config.lora is None else 4 + (4 if config.lora.dropout else 0)
    gradients = tokens * (shape.intermediate * inner + 3 * shape.hidden * computing.stream)
    if config.lora is None:  # a tied head's gradient waits for the embedding's, to the very end
        return gradients + (head_gradient(shape) if shape.tied else 0)
    if not config.lora.use_dora:
        return gradients
    return max(
        gradients,
        *(4 * (2 * target.shape[1] ** 2 + 3 * target.count) for target in parts.targets if target in shape.layer),
    )


def _inputs(config: RunConfig, shape: Shape, reading: list[Tensor], computing: Computing) -> int:
    """Bytes a token of what linear layers that read the same keep of it, `reading` being those that train."""
    if not reading:
        return 0
    width, wide = reading[0].shape[1], computing.compute
    shared = 0 if _is_output(reading[0]) else width * wide  # attention's output is kept by attention itself
    if config.lora is None:
        return shared * (len(reading) if computing.cast else 1)
    ranks = len(reading) * config.lora.r * wide
    dora = sum(tensor.shape[0] * (wide + 4) for tensor in reading) if config.lora.use_dora else 0
    if config.lora.dropout > 0:
        return len(reading) * width * (wide + computing.dropped) + ranks + dora
    return (len(reading) * width * wide if computing.cast else shared) + ranks + dora


def _groups(layer: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """The linear layers of a layer, those together that read the same: q, k and v; gate and up."""
    groups: dict[str, list[Tensor]] = {}
    for tensor in layer:
        if len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
            continue
        name = tensor.module.rpartition(".")[2]
        groups.setdefault(READ_TOGETHER.get(name, name), []).append(tensor)
    return list(groups.values())


def _is_output(tensor: Tensor) -> bool:
    return tensor.module.endswith(("o_proj", "attn.dense", "attn.c_proj", "out_proj"))


def _norm_width(tensor: Tensor, shape: Shape) -> int:
    if "q_norm" in tensor.name:
        return shape.heads * shape.head_dim
    if "k_norm" in tensor.name:
        return shape.kv_heads * shape.head_dim
    return shape.hidden if tensor.name.endswith("weight") else 0
