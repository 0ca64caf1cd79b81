"""Bytes on one GPU, by what takes them: from shapes alone, before a GPU is asked for.

What ZeRO shards is Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020),
section 5, with the widths that this project trains in: trained parameters and their optimizer state are fp32 under
every strategy, frozen ones and what is computed with are bf16 (or fp32).
"""

from dataclasses import dataclass, fields

from job.config import RunConfig
from job.config.deepspeed import ALLGATHER_BUCKET, PREFETCH_BUCKET, REDUCE_BUCKET
from job.host.activations import Computing, kept
from job.host.shape import Shape, Trained, trained

NF4_BITS = 4.127  # a weight: four bits, a scale of 8 bits for 64 and one of 32 for 64 x 256 (Dettmers et al. 2023)
BLOCK_8BIT, SMALL_8BIT = 256, 4096  # bitsandbytes: a scale for each block; smaller tensors stay in fp32
WORKSPACE_BYTES = 40 << 20  # cuBLAS's own, 32 MiB on Hopper, and what rounding up to 512 bytes adds
LIVE_ELEMENTS = 1_000_000_000  # DeepSpeed's default: what stage 3 holds gathered at most


@dataclass(frozen=True)
class Parts:
    """Bytes on one GPU; `host` those in the host's memory for one rank."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    buffers: int
    host: int = 0

    @property
    def total(self) -> int:
        """On the GPU. All at once: gradients stay from one micro-batch to the next."""
        return sum(getattr(self, field.name) for field in fields(self) if field.name != "host")

    def by_name(self) -> dict[str, int]:
        return {field.name: int(getattr(self, field.name)) for field in fields(self) if field.name != "host"}


def estimate(
    config: RunConfig,
    shape: Shape,
    strategy: str,
    offload: str,
    world_size: int,
    token_budget: int,
    gradient_checkpointing: bool,
    device: str = "cuda",
) -> Parts:
    """The fullest moment of a micro-batch of `token_budget` tokens, all trained; `model.precision` is settled.

    - weights: frozen ones in the compute type, or nf4; without LoRA the fp32 parameters (under ZeRO their bf16 copy)
    - adapter: LoRA's trained parameters and whole modules, fp32 (under ZeRO their copy in the compute type)
    - gradients: fp32, one a trained parameter (under ZeRO they are added up in fp32); sharded from zero2 on
    - optimizer: exp_avg and exp_avg_sq in fp32, or codes of a byte each and their scales; under ZeRO the fp32 master
      copy and the gradients it is stepped with too, all sharded
    - activations, logits: see `job.host.activations`
    - buffers: DDP's buckets, which hold the gradients once more; autocast's copies of trained weights; DeepSpeed's
      buckets and what stage 3 gathers; cuBLAS's workspace
    """
    found = trained(config, shape)
    zero = int(strategy[4]) if strategy.startswith("zero") else 0
    ranks = max(world_size, 1)
    wide = 2 if config.model.precision == "bf16" else 4
    held = wide if zero else 4  # a trained parameter where it is computed with
    frozen = 0 if config.lora is None else frozen_bytes(config, shape, wide)
    own, shard = found.count * held, -(-found.count // ranks)
    sharded = ranks if zero == 3 else 1
    weights, adapter = (own // sharded, 0) if config.lora is None else (frozen // sharded, own // sharded)
    gradients = 4 * (shard if zero >= 2 else found.count)
    state = (4 + 8 + 4) * shard if zero else optimizer_bytes(config, found)
    cast = wide == 2 and not zero
    buffers = (WORKSPACE_BYTES if device == "cuda" else 0) + _buffers(config, shape, found, strategy, ranks, wide, cast)
    computing = Computing(
        compute=wide,
        stream=4 if config.lora is None and cast else wide,
        cast=cast,
        dropped=1 if device == "cuda" else (wide if zero else 4),
    )
    keeps = kept(config, shape, found, computing, token_budget, gradient_checkpointing)
    host = 0
    if zero and offload != "none":
        state, host = 0, state
    if zero == 3 and offload == "all":
        weights, adapter, host = 0, 0, host + weights + adapter
    return Parts(weights, adapter, gradients, state, keeps.layers, keeps.logits, buffers, host)


def _buffers(config: RunConfig, shape: Shape, found: Trained, strategy: str, ranks: int, wide: int, cast: bool) -> int:
    """Beside the workspace: what strategies and autocast hold for themselves."""
    size = 0
    if cast:
        read = config.lora is None and shape.tied  # the embedding as a head too
        size += 2 * sum(count for count, embeds in found.tensors if read or not embeds)
    if strategy == "ddp" and ranks > 1:
        size += 4 * found.count
    if strategy.startswith("zero"):
        twice = 2 if strategy == "zero3" else 1  # it reduces one bucket while the next is filled
        size += twice * 4 * min(REDUCE_BUCKET, found.count) + wide * min(ALLGATHER_BUCKET, found.count)
    if strategy == "zero3":
        size += wide * min(LIVE_ELEMENTS + PREFETCH_BUCKET, shape.parameters + found.adapter)
    return size


def frozen_bytes(config: RunConfig, shape: Shape, wide: int) -> int:
    """The base under an adapter. nf4 takes the linear layers; embeddings, norms and the head stay as they are."""
    if config.model.quantize != "nf4":
        return wide * shape.parameters
    packed = sum(tensor.count for tensor in shape.matrices)
    return int(packed * NF4_BITS / 8) + wide * (shape.parameters - packed)


def optimizer_bytes(config: RunConfig, found: Trained) -> int:
    """AdamW's two moments (Loshchilov and Hutter 2019), fp32; 8-bit (Dettmers et al. 2022): codes and block scales.

    bitsandbytes leaves small tensors, and transformers embeddings, in fp32.
    """
    if config.train.optim != "adamw_8bit":
        return 8 * found.count
    total = 0
    for count, embeds in found.tensors:
        total += 8 * count if embeds or count < SMALL_8BIT else 2 * count + 8 * -(-count // BLOCK_8BIT)
    return total


def checkpoint_bytes(config: RunConfig, shape: Shape) -> int:
    """One commit: trained tensors and the optimizer's, whole and in fp32 (8-bit states as they are)."""
    found = trained(config, shape)
    return 4 * found.count + optimizer_bytes(config, found)
