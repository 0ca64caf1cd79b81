"""A snapshot: trainable tensors and optimizer tensors whole, by parameter name, and one integer.

The training loop waits only for the copy to host memory. A thread serializes into a hidden folder and renames it when
all is on disk: a folder named step-N is whole. safetensors and JSON only.
"""

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from job.errors import DataError, HardwareError
from job.rundir import RunDir

FORMAT = 1
TRAINABLE, OPTIMIZER, STATE = "trainable.safetensors", "optimizer.safetensors", "state.json"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Snapshot:
    """Host copies. `optimizer` maps "exp_avg/<parameter name>" to a tensor. Its step count is the run's step, but for
    parameters that had no gradient in some steps: those have "step/<parameter name>"."""

    step: int
    trainable: Tensors
    optimizer: Tensors
    evaluations: list[dict[str, Any]]  # so far, as {"step": n, "eval_loss": x, ...}


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """By name; tied parameters appear once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def capture(step: int, model: Any, optimizer: torch.optim.Optimizer, evaluations: list[dict[str, Any]]) -> Snapshot:
    """Copy what a run needs to go on into host memory."""
    parameters = trainable_parameters(model)
    return Snapshot(
        step,
        {name: _host_copy(parameter) for name, parameter in parameters.items()},
        {
            f"{key}/{name}": _host_copy(value)
            for name, parameter in parameters.items()
            for key, value in optimizer.state.get(parameter, {}).items()
            if (key != "step" and isinstance(value, torch.Tensor)) or (key == "step" and int(value) != step)
        },
        list(evaluations),
    )


def _host_copy(value: torch.Tensor | int) -> torch.Tensor:
    return torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()


def write(snapshot: Snapshot, target: Path) -> None:
    """Write all files into a hidden sibling of `target`, flush them to disk, rename; an older `target` is replaced.

    Raises: HardwareError when the disk is full; `target` is as it was then, and nothing is left beside it.
    """
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file(snapshot.trainable, partial / TRAINABLE)
        save_file(snapshot.optimizer, partial / OPTIMIZER)
        state = {"format": FORMAT, "step": snapshot.step, "evaluations": snapshot.evaluations}
        (partial / STATE).write_text(json.dumps(state), encoding="utf-8")
        for file in partial.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _disk_is_full(error):
            raise HardwareError(
                f"no space left for a snapshot in {target.parent}; free some, or set SFT_JOB_HOME"
            ) from error
        raise


def _disk_is_full(error: Exception) -> bool:
    """safetensors says it only in its text."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"os error {number})" in str(error) for number in full)


def read_tensors(path: Path) -> Tensors:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@torch.no_grad()
def restore_parameters(folder: Path, model: Any) -> None:
    """Copy the stored tensors into the model's parameters of the same names.

    Raises: DataError when names or shapes differ: the checkpoint is another model's.
    """
    stored, parameters = read_tensors(folder / TRAINABLE), trainable_parameters(model)
    if stored.keys() != parameters.keys():
        odd = sorted(stored.keys() ^ parameters.keys())
        raise DataError(f"the checkpoint's parameters are not this model's: {odd[0]} and {len(odd) - 1} more differ")
    for name, parameter in parameters.items():
        if stored[name].shape != parameter.shape:
            raise DataError(
                f"the checkpoint's {name} has shape {list(stored[name].shape)}, the model's {list(parameter.shape)}"
            )
        parameter.copy_(stored[name])


def restore_optimizer(folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Give each parameter its stored state; the optimizer's own loader places and casts it."""
    by_name: dict[str, dict[str, Any]] = {}
    for key, tensor in read_tensors(folder / OPTIMIZER).items():
        kind, name = key.split("/", 1)
        by_name.setdefault(name, {})[kind] = tensor
    names = {parameter: name for name, parameter in trainable_parameters(model).items()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    counts_in_tensors = type(optimizer).__module__.startswith("torch.")
    whole = optimizer.state_dict()
    whole["state"] = {
        at: {**by_name[name], "step": _step_count(by_name[name].get("step", step), counts_in_tensors)}
        for at, name in enumerate(ordered)
        if name in by_name
    }
    optimizer.load_state_dict(whole)


def _step_count(count: torch.Tensor | int, in_tensors: bool) -> torch.Tensor | int:
    return torch.tensor(float(count)) if in_tensors else int(count)


class SnapshotWriter:
    """Writes on a thread, one at a time; a newer snapshot replaces one that still waits, unless that one is needed."""

    def __init__(self, run: RunDir, written: Callable[[int, float], None]) -> None:
        self._run, self._written = run, written
        self._waiting: list[tuple[Snapshot, bool]] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._busy = False
        threading.Thread(target=self._work, daemon=True, name="snapshot-writer").start()

    def put(self, snapshot: Snapshot, needed: bool = False) -> None:
        """`needed`: only a newer needed one replaces it.

        Raises what an earlier write raised: a full disk ends the run with its cause.
        """
        with self._changed:
            self._raise_error()
            self._waiting = [waits for waits in self._waiting if waits[1] and not needed] + [(snapshot, needed)]
            self._changed.notify_all()

    def wait(self) -> None:
        """Until everything handed over is on disk."""
        with self._changed:
            self._changed.wait_for(lambda: (not self._waiting and not self._busy) or self._error is not None)
            self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                (snapshot, _), self._busy = self._waiting.pop(0), True
            begun = time.monotonic()
            try:
                write(snapshot, self._run.snapshot(snapshot.step))
                self._written(snapshot.step, time.monotonic() - begun)
            except BaseException as error:
                self._error = error
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
