"""What a tracker is, what it is told, and the run ids that make every attempt one run in its dashboard."""

import importlib.util
import json
import secrets
from collections.abc import Mapping
from typing import Any, Protocol

from job.config import RunConfig
from job.errors import ConfigError
from job.report.samples import Row
from job.report.wording import numbers
from job.storage.store import NotFound, ObjectStore

IDS_KEY = "trackers.json"
DONE_SECONDS = 30.0  # how long the end of a finished run may wait for a dashboard or for report files
LEAVE_SECONDS = 5.0  # and any other end: the grace of a preempted job is for its checkpoint


class Tracker(Protocol):
    """A dashboard. Any exception switches it off for the rest of the attempt; training goes on."""

    name: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars by their dashboard name, `train/loss` for instance."""

    def samples(self, step: int, rows: list[Row]) -> None:
        """Rows of `samples.COLUMNS`."""

    def restarted(self, step: int) -> None:
        """What was logged after `step` comes once more."""

    def close(self, outcome: str) -> None:
        """Write out what is left, within a bound. `outcome` is `done`, `stopped`, or any other word for a failure."""


def check_trackers(config: RunConfig) -> None:
    """Before anything is pulled: is every tracker asked for installed? Raises ConfigError."""
    if "wandb" in config.track and importlib.util.find_spec("wandb") is None:
        raise ConfigError("track: [wandb] needs pip install 'sft-job[wandb]'")


def step_scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """A logged step as scalars: train/loss, grad_norm, learning_rate, epoch, tokens_per_second."""
    names = ("loss", "grad_norm", "learning_rate", "epoch")
    scalars = {f"train/{name}": value for name, value in numbers(event).items() if name in names}
    if event.get("tokens") and event.get("seconds"):
        scalars["train/tokens_per_second"] = event["tokens"] / event["seconds"]
    return scalars


def evaluation_scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """An evaluation's metrics, `eval_loss` as `eval/loss`."""
    return {f"eval/{name.removeprefix('eval_')}": value for name, value in numbers(event["metrics"]).items()}


def tracker_ids(store: ObjectStore, name: str, project: str) -> dict[str, str]:
    """The id and project that all attempts of this run use with a tracker; made by the first one that asks.

    Raises StorageError, DataError.
    """
    fresh = {"id": secrets.token_hex(6), "project": project}
    if store.put_if_absent(IDS_KEY, _encode({name: fresh})):
        return fresh
    try:
        known = json.loads(store.get(IDS_KEY))
    except NotFound:  # a store whose put-if-absent says no to everything
        known = {}
    if name not in known:  # a tracker that was added later; only the owner of the run writes here
        known[name] = fresh
        store.put(IDS_KEY, _encode(known))
    ids: dict[str, str] = known[name]
    return ids


def _encode(ids: Mapping[str, Any]) -> bytes:
    return json.dumps(ids, indent=1).encode()
