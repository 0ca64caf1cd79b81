"""The token budget of an attempt: as it worked before on such a machine, else as estimated, halved where memory ends.

`budgets/<machine>.json` in the run folder holds what is known to work on one kind of machine: an attempt that resumes
there lays out its steps alike, bit by bit.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from job.config import RunConfig
from job.errors import DataError, JobError, OutOfMemory
from job.host.choice import Choice, choose, gib, strategies
from job.host.gpus import Gpu, gpus
from job.host.shape import Shape, Tensor, shape_of
from job.host.topology import Topology
from job.measured import Measured
from job.storage.headers import folder_heads
from job.storage.model_files import CONFIG, read_json
from job.storage.records import Record
from job.storage.store import NotFound, ObjectStore

Say = Callable[[str], None]


class BudgetRecord(Record):
    """`budgets/<machine>.json`."""

    strategy: str
    token_budget: int
    gradient_checkpointing: bool
    predicted_bytes: int | None = None  # on one GPU
    peak_bytes: int | None = None  # measured; None where the device does not tell


class Budget:
    """What the ranks of an attempt are told of their layout, and how that changes where they run out of memory."""

    def __init__(
        self,
        config: RunConfig,
        choice: Choice,
        machine: Topology,
        store: ObjectStore,
        key: str,
        known: BudgetRecord | None,
        say: Say,
    ) -> None:
        self._config, self._choice, self._machine = config, choice, machine
        self._store, self._key, self._known, self._say = store, key, known, say
        self._lowered = False

    @property
    def choice(self) -> Choice:
        return self._choice

    def settled(self) -> RunConfig:
        """For the ranks: every `auto` of the layout written out. What the run is stays as the user wrote it."""
        return self._choice.settle(self._config)

    def lower(self, error: JobError) -> str:
        """After ranks that ran out of memory: what they do instead, as the beginning of a sentence; else nothing.

        Layers are recomputed first, then the budget is halved, down to one row, then a strategy is taken that shards
        more; only what is `auto` changes.
        Raises: OutOfMemory where nothing is left to lower.
        """
        if not isinstance(error, OutOfMemory):
            return ""
        train, now, row = self._config.train, self._choice, self._config.data.max_length
        if train.gradient_checkpointing == "auto" and not now.gradient_checkpointing:
            self._choice = replace(now, gradient_checkpointing=True, predicted=None)
            said = "layers are recomputed from now on"
        elif train.token_budget == "auto" and now.token_budget > row:
            self._choice = replace(now, token_budget=max(row, now.token_budget // 2), predicted=None)
            said = f"the token budget is {self._choice.token_budget:,} from now on"
        elif following := self._strategies_left():
            self._choice = replace(now, strategy=following[0], predicted=None)
            said = f"{following[0]} takes the place of {now.strategy}"
        else:
            raise OutOfMemory(_refusal(self._config, now, error)) from error
        self._lowered = True
        return f"{said}, and "

    def _strategies_left(self) -> tuple[str, ...]:
        every = strategies(self._config, self._machine)
        return every[every.index(self._choice.strategy) + 1 :]

    def keep(self, measured: Measured) -> None:
        """Once the ranks have shown that it works. What the default gives on every CPU needs no record."""
        trial, now = measured.trial, self._choice
        if trial is None or (now.predicted is None and not self._lowered):
            return
        peak = trial.get("peak_bytes")
        record = BudgetRecord(
            strategy=now.strategy,
            token_budget=now.token_budget,
            gradient_checkpointing=now.gradient_checkpointing,
            predicted_bytes=now.predicted.total if now.predicted else None,
            peak_bytes=int(peak) if peak else None,
        )
        if self._known is None or _layout(self._known) != _layout(record):
            try:
                self._store.put(self._key, record.dump())
            except JobError as error:
                self._say(f"the token budget was not recorded: {error}")
            self._known = record


def budget(
    config: RunConfig,
    base: Path,
    machine: Topology,
    store: ObjectStore,
    say: Say,
    present: Callable[[], list[Gpu]] = gpus,
) -> Budget:
    """For the leader, once the base lies in the folder `base`; `config` has its precision settled.

    `present`: this machine's GPUs. Raises: StorageError.
    """
    devices = present()[: machine.ranks_per_node] if machine.device == "cuda" else []
    choice, key, known = chosen(config, shape_in(base) if devices else None, devices, machine, store, say)
    if machine.device == "cuda" or known is not None:
        say(choice.why)
    if choice.warning:
        say(choice.warning)
    return Budget(config, choice, machine, store, key, known, say)


def chosen(
    config: RunConfig, shape: Shape | None, devices: list[Gpu], machine: Topology, store: ObjectStore, say: Say
) -> tuple[Choice, str, BudgetRecord | None]:
    """As estimated, or as it worked before on such a machine; the key of its record, and that. Raises: StorageError."""
    memory = min((gpu.memory_bytes for gpu in devices), default=None)
    choice = choose(config, shape, machine, memory)
    key = f"budgets/{machine_name(devices, machine, choice.strategy)}.json"
    known = _read(store, key, say)
    return (choice if known is None else _as_known(config, choice, known)), key, known


def shape_in(base: Path) -> Shape | None:
    """None where it cannot be known: weights without headers, a config without sizes."""
    try:
        tensors = [Tensor(*head) for head in folder_heads(base)]
        return shape_of(read_json(base / CONFIG, str(base / CONFIG)), tensors, str(base))
    except JobError:
        return None


def machine_name(devices: list[Gpu], machine: Topology, strategy: str) -> str:
    """`h100-80gb-80gib-8-ddp`: the device, its memory, the ranks, the strategy."""
    if devices:
        least = min(devices, key=lambda gpu: gpu.memory_bytes)
        name, memory = least.name, least.memory_bytes
    else:
        name, memory = machine.device, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-{memory / (1 << 30):.0f}gib-{machine.world_size}-{strategy}"


def _as_known(config: RunConfig, choice: Choice, known: BudgetRecord) -> Choice:
    """Only what the config leaves open."""
    train = config.train
    tokens = known.token_budget if train.token_budget == "auto" else choice.token_budget
    recompute = choice.gradient_checkpointing
    if train.gradient_checkpointing == "auto":
        recompute = known.gradient_checkpointing
    strategy = known.strategy if config.parallel.strategy == "auto" else choice.strategy
    if (strategy, tokens, recompute) == (choice.strategy, choice.token_budget, choice.gradient_checkpointing):
        return choice
    took = f", which took {gib(known.peak_bytes)}" if known.peak_bytes else ""
    why = f"{strategy}: micro-batches of {tokens:,} tokens{', layers recomputed' if recompute else ''}, "
    return replace(
        choice,
        strategy=strategy,
        token_budget=tokens,
        gradient_checkpointing=recompute,
        why=f"{why}as before on such a machine{took}",
        predicted=None,
    )


def _read(store: ObjectStore, key: str, say: Say) -> BudgetRecord | None:
    try:
        return BudgetRecord.parse(store.get(key), f"{store.uri}/{key}")
    except NotFound:
        return None
    except DataError as error:
        say(f"{error}; the token budget is estimated anew")
        return None


def _layout(record: BudgetRecord) -> tuple[object, ...]:
    return record.strategy, record.token_budget, record.gradient_checkpointing


def _refusal(config: RunConfig, now: Choice, error: JobError) -> str:
    row = config.data.max_length
    if now.token_budget > row:
        return f"{error}; train.token_budget is {now.token_budget:,}: leave it at auto, or lower it, down to {row:,}"
    if not now.gradient_checkpointing:
        return f"{error}; one row already: set train.gradient_checkpointing to auto, or shorten data.max_length"
    way = "take a larger GPU" if now.strategy in ("zero3", "single") else "set parallel.strategy to zero3"
    return (
        f"out of memory with one row of {row:,} tokens at a time, layers recomputed: shorten data.max_length or {way}"
    )
