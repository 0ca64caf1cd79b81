"""All that a plan needs to know, read without changing anything: the base's shape, how much data, what was measured."""

import contextlib
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from job.config import RunConfig
from job.errors import DataError, JobError
from job.host.assumed import assumed_tensors
from job.host.forecast import Measured
from job.host.preemption import Stop
from job.host.shape import Shape, Tensor, shape_of
from job.inputs import Listener, pull_for
from job.sampling import Amount, Counter, amount, counting
from job.storage.checkpoints import commit_keys, step_of
from job.storage.headers import Described, describe
from job.storage.pull import pull_files
from job.storage.puller import Pull
from job.storage.records import PreparedRecord, RunRecord
from job.storage.store import ObjectStore
from job.workspace import scratch_folder

VOCABULARY = "tokenizer.json"
SEGMENTS = 5  # of events, the newest: each costs a request


@dataclass(frozen=True)
class Foreseen:
    source: str  # the base, its revision pinned
    shape: Shape
    weight_bytes: int
    amount: Amount
    pulled_data_bytes: int = 0  # that a node pulls; 0 where data are read in place
    begun: bool = False
    done: int = 0  # steps that are committed
    measured: Measured = field(default_factory=Measured)
    assumed: bool = False  # the shape, from the config alone: the weights bring no headers


def foresee(
    config: RunConfig, record: RunRecord | None, store: ObjectStore, stop: Stop, listener: Listener
) -> Foreseen:
    """Raises: DataError where base or data are not there or are damaged, StorageError, HardwareError, Stopped."""
    pull = pull_for(config, stop, listener)
    base = record.base_source if record is not None else config.model.base
    try:
        described = describe(base, pull)
        shape = _shape(described)
    except DataError as error:
        raise DataError(f"model.base: {error}") from error
    if record is not None:
        found = _prepared(record, store)
        return Foreseen(
            described.source,
            shape,
            described.weight_bytes,
            found,
            begun=True,
            done=_done(store),
            measured=measured(store),
            assumed=not described.tensors,
        )
    try:
        tokens = amount(config, pull, _counter(config, pull))
    except DataError as error:
        raise DataError(f"data.train: {error}") from error
    return Foreseen(
        described.source,
        shape,
        described.weight_bytes,
        tokens,
        tokens.pulled_bytes,
        assumed=not described.tensors,
    )


def _shape(described: Described) -> Shape:
    """By its headers, else as its config lets one assume. Raises: DataError."""
    heads = described.tensors
    if not heads:
        with contextlib.suppress(KeyError):  # what is missing is named below
            heads = list(assumed_tensors(described.config))
    return shape_of(described.config, (Tensor(*head) for head in heads), described.source)


def _prepared(record: RunRecord, store: ObjectStore) -> Amount:
    """As the run's own rows were counted."""
    key = f"prepared/{record.prepared}.json"
    folder = PreparedRecord.parse(store.get(key), f"{store.uri}/{key}").folder
    summary = json.loads(store.get(f"{folder}/summary.json"))
    rows = int(summary.get("epoch_rows") or summary["rows"])
    tokens = round(summary["tokens"] * rows / max(int(summary["rows"]), 1))
    return Amount(rows, tokens, True, "counted in the run's prepared rows", 0)


def _done(store: ObjectStore) -> int:
    return max((step_of(key) for key in commit_keys(store)), default=0)


def _counter(config: RunConfig, pull: Pull) -> Counter | None:
    """The run's own tokenizer, where it is one that needs no transformers."""
    source = config.model.tokenizer or config.model.base
    try:
        with scratch_folder("plan") as scratch:
            pulled = pull_files(source, [VOCABULARY], scratch / "tokenizer", pull, "tokenizer")
            return counting(pulled.path / VOCABULARY)
    except DataError:
        return None


def measured(store: ObjectStore) -> Measured:
    """From the newest attempt's events; nothing where there are none."""
    try:
        keys = sorted(entry.key for entry in store.list("events/"))
        newest = [key for key in keys if key[:11] == keys[-1][:11]][-SEGMENTS:]
        events = [event for key in newest for event in _events(store.get(key))]
    except JobError:
        return Measured()
    return Measured(
        _median(event.get("seconds") for event in events if event.get("kind") == "step"),
        _median(event.get("blocked_seconds") for event in events if event.get("kind") == "snapshot"),
        _median(event.get("seconds") for event in events if event.get("kind") == "snapshot_written"),
    )


def _events(segment: bytes) -> Iterable[dict[str, Any]]:
    for line in segment.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _median(values: Iterable[Any]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return statistics.median(numbers) if numbers else None
