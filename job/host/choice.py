"""Which strategy, how many tokens in a micro-batch, and whether activations are recomputed: chosen by what fits.

What the config says stands, whatever the estimate says; only what it leaves at `auto` is chosen. A ZeRO strategy is
taken only where fewer shards would not fit, layers are recomputed only where memory demands it, and nothing is moved
to the host's memory unless `parallel.offload` says so.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from job.config import RunConfig
from job.config.schema import AUTO_BUDGET_ROWS
from job.host.estimate import Parts, estimate
from job.host.shape import Shape
from job.host.topology import Topology

FILLED = 0.9  # of a GPU's memory: the rest is the driver's, NCCL's and the allocator's gaps
FAR = 1.25  # times a GPU's memory: what is that much over will not fit by luck
LARGEST_ROWS = 16  # in a micro-batch: more does not make a GPU faster
ENOUGH_TOKENS = 4096  # in a micro-batch: from here on a GPU is busy, so recomputing to fit more is not worth it
MOST_TOKENS = 32768  # unless a row is longer
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")


@dataclass(frozen=True)
class Choice:
    """What the ranks are told; `predicted` is None where nothing is known of the GPU or the model."""

    strategy: str
    offload: str
    token_budget: int
    gradient_checkpointing: bool
    why: str
    predicted: Parts | None = None
    warning: str = ""

    def settle(self, config: RunConfig) -> RunConfig:
        """The config with these values written out. All of them are free fields: the run stays the same run."""
        return config.replace(
            {
                "parallel.strategy": self.strategy,
                "parallel.offload": self.offload,
                "train.token_budget": self.token_budget,
                "train.gradient_checkpointing": self.gradient_checkpointing,
            }
        )


@dataclass(frozen=True)
class Option:
    """One way to run, and what it would take on one GPU."""

    strategy: str
    gradient_checkpointing: bool
    token_budget: int
    parts: Parts


def choose(config: RunConfig, shape: Shape | None, machine: Topology, gpu_bytes: int | None) -> Choice:
    """`machine.strategy` counts only where nothing is known of the model or of the GPUs; precision is settled.

    `gpu_bytes`: memory of the smallest GPU; None on the CPU, and where the driver does not say.
    """
    choice = _chosen(config, shape, machine, gpu_bytes)
    return replace(choice, warning="; ".join(filter(None, (choice.warning, idle_ranks(config, machine)))))


def idle_ranks(config: RunConfig, machine: Topology) -> str:
    """A warning where a step has fewer rows than there are ranks; else nothing."""
    rows, ranks = config.train.global_batch_size, machine.world_size
    if rows >= ranks:
        return ""
    text = f"{rows} {'row' if rows == 1 else 'rows'} a step on {ranks} ranks leave {ranks - rows} idle"
    return f"{text}: raise train.global_batch_size, or take fewer ranks"


def _chosen(config: RunConfig, shape: Shape | None, machine: Topology, gpu_bytes: int | None) -> Choice:
    if shape is None or gpu_bytes is None or machine.device == "cpu":
        return _usual(config, machine)
    room = int(gpu_bytes * FILLED)
    tried = list(options(config, shape, machine))
    rows = _rows_of_a_rank(config, machine)
    found = next((one for one in tried if one.parts.total <= room), None)
    if found is None:
        return _none_fits(config, tried, gpu_bytes)
    best = _largest(config, shape, machine, found.strategy, room, rows)
    return Choice(
        best.strategy,
        config.parallel.offload,
        best.token_budget,
        best.gradient_checkpointing,
        _why(config, best, tried[: tried.index(found)], gpu_bytes),
        best.parts,
    )


def strategies(config: RunConfig, machine: Topology) -> tuple[str, ...]:
    """Those that come into question, the one that shards least first."""
    if config.parallel.strategy != "auto":
        return (config.parallel.strategy,)
    if config.parallel.offload != "none":
        return ("zero3",) if config.parallel.offload == "all" else STRATEGIES[1:]
    if machine.world_size == 1:
        return ("single",)
    if config.train.optim == "adamw_8bit":
        return STRATEGIES[:1]
    return STRATEGIES[:3] if config.model.quantize is not None else STRATEGIES


def options(config: RunConfig, shape: Shape, machine: Topology) -> Iterator[Option]:
    """Every way that comes into question with as few tokens as possible, in the order of preference."""
    budget = config.train.token_budget
    least = config.data.max_length if budget == "auto" else budget
    for strategy in strategies(config, machine):
        for recompute in _recomputing(config):
            yield _option(config, shape, machine, strategy, recompute, least)


def _largest(config: RunConfig, shape: Shape, machine: Topology, strategy: str, room: int, rows: int) -> Option:
    """The most tokens that fit; recomputed only where without it too few do."""
    least = config.data.max_length
    enough = min(AUTO_BUDGET_ROWS * least, max(least, ENOUGH_TOKENS))
    best: Option | None = None
    for recompute in _recomputing(config):
        fitting = [
            one
            for budget in _budgets(config, rows)
            if (one := _option(config, shape, machine, strategy, recompute, budget)).parts.total <= room
        ]
        if fitting and (best is None or fitting[-1].token_budget > best.token_budget):
            best = fitting[-1]
        if best is not None and best.token_budget >= enough:
            break
    assert best is not None  # the caller found that one row fits
    return best


def _option(config: RunConfig, shape: Shape, machine: Topology, strategy: str, recompute: bool, budget: int) -> Option:
    parts = estimate(
        config, shape, strategy, config.parallel.offload, machine.world_size, budget, recompute, machine.device
    )
    return Option(strategy, recompute, budget, parts)


def _budgets(config: RunConfig, rows: int) -> list[int]:
    """One row of the greatest length, and doublings; no more than a rank's share of a step, but 4 rows in any case."""
    if config.train.token_budget != "auto":
        return [config.train.token_budget]
    length = config.data.max_length
    most = min(LARGEST_ROWS, max(AUTO_BUDGET_ROWS, rows))
    doubled = [2**power for power in range(LARGEST_ROWS.bit_length()) if 2**power <= most]
    return [length * count for count in doubled if count == 1 or length * count <= MOST_TOKENS]


def _recomputing(config: RunConfig) -> tuple[bool, ...]:
    asked = config.train.gradient_checkpointing
    return (False, True) if asked == "auto" else (asked,)


def _rows_of_a_rank(config: RunConfig, machine: Topology) -> int:
    """A power of two that holds them."""
    return int(2 ** math.ceil(math.log2(max(1, config.train.global_batch_size / machine.world_size))))


def _usual(config: RunConfig, machine: Topology) -> Choice:
    """Nothing to calculate with: DDP and a few rows, layers recomputed on GPUs."""
    asked = config.train.gradient_checkpointing
    on_gpu = machine.device == "cuda"
    recompute = on_gpu if asked == "auto" else asked
    strategy = strategies(config, machine)[0]
    reason = "what the GPUs hold, or the model's shape, is not known" if on_gpu else "on the CPU nothing is estimated"
    why = f"{strategy}: micro-batches of {config.token_budget:,} tokens; {reason}"
    return Choice(strategy, config.parallel.offload, config.token_budget, recompute, why)


def _none_fits(config: RunConfig, tried: list[Option], gpu_bytes: int) -> Choice:
    """The last resort is tried all the same: an estimate is no measurement."""
    last = min(tried, key=lambda one: one.parts.total)
    needs = f"{last.strategy} needs about {gib(last.parts.total)} of the {gib(gpu_bytes)} of each GPU"
    warning = ""
    if last.parts.total > FAR * gpu_bytes:
        tokens = f"{last.token_budget:,} tokens at a time"
        warning = f"{needs}, with {tokens}: expect it to run out of memory; {_way_out(config)}"
    return Choice(
        last.strategy,
        config.parallel.offload,
        last.token_budget,
        last.gradient_checkpointing,
        f"{needs}, and nothing needs less",
        last.parts,
        warning,
    )


def _way_out(config: RunConfig) -> str:
    if config.parallel.strategy not in ("auto", "zero3"):
        return "leave parallel.strategy at auto, or take more or larger GPUs"
    if config.lora is None:
        return "use lora, parallel.offload: all, or more or larger GPUs"
    return "use model.quantize: nf4, a shorter data.max_length, or more or larger GPUs"


def _why(config: RunConfig, best: Option, passed: list[Option], gpu_bytes: int) -> str:
    """`passed`: what was tried before and does not fit even with a single row."""
    text = f"{best.strategy}: {gib(best.parts.total)} of the {gib(gpu_bytes)} of each GPU"
    text += f" with micro-batches of {best.token_budget:,} tokens"
    if best.gradient_checkpointing:
        text += ", layers recomputed"
    if config.parallel.strategy != "auto":
        return f"{text}; the strategy is the config's"
    weaker = [one for one in passed if one.strategy != best.strategy]
    if weaker:
        text += f"; {weaker[-1].strategy} would need {gib(weaker[-1].parts.total)} for a single row"
    return text


def gib(size_bytes: int) -> str:
    """GPU memory, as its vendors count it."""
    size = size_bytes / (1 << 30)
    return f"{size:.0f} GiB" if size >= 10 else f"{size:.1f} GiB"
