"""A snapshot: trainable tensors and optimizer tensors whole, by parameter name, and one integer.

Written into a hidden folder that is renamed when all is on disk: a folder named step-N is whole. safetensors and JSON
only. The optimizer's tensors are named "exp_avg/<parameter name>"; its step count is the run's step, but for parameters
that had no gradient in some steps: those have "step/<parameter name>".
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from job.errors import DataError, HardwareError
from job.training.packed import Packed, Tensors, pack
from job.training.stored import Stored

FORMAT = 1
TRAINABLE, OPTIMIZER, STATE = "trainable.safetensors", "optimizer.safetensors", "state.json"
BLOCK_BYTES = 256 << 20  # so much at a time is flushed to disk: a slow one is seen to get on


@dataclass(frozen=True)
class Snapshot:
    """In host memory, best as the files it becomes. It is whole once `copied` has returned."""

    step: int
    trainable: Tensors
    optimizer: Tensors
    evaluations: list[dict[str, Any]]  # so far, as {"step": n, "eval_loss": x, ...}
    copied: Callable[[], None] = lambda: None
    hooks: Any = None  # what the user's own code knows, as JSON holds it


def trainable_parameters(model: Any) -> dict[str, torch.nn.Parameter]:
    """By name; tied parameters appear once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def under_all_names(tensors: Tensors, model: Any) -> Tensors:
    """Tied parameters under each of their names, as the model's own state dict has them."""
    first = {id(parameter): name for name, parameter in trainable_parameters(model).items()}
    every = model.named_parameters(remove_duplicate=False)
    return {name: tensors[first[id(parameter)]] for name, parameter in every if id(parameter) in first}


def write(snapshot: Snapshot, target: Path, getting_on: Callable[[], object] = lambda: None) -> None:
    """Write all files into a hidden sibling of `target`, flush them to disk, rename; an older `target` is replaced.
    `getting_on` is called after each block that lies on the disk.

    Raises: HardwareError when the disk is full; `target` is as it was then, and nothing is left beside it.
    """
    partial = target.with_name(f".{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    state = {"format": FORMAT, "step": snapshot.step, "evaluations": snapshot.evaluations}
    if snapshot.hooks is not None:
        state["hooks"] = snapshot.hooks
    try:
        partial.mkdir(parents=True)
        snapshot.copied()
        for name, data in (
            (TRAINABLE, _file(snapshot.trainable)),
            (OPTIMIZER, _file(snapshot.optimizer)),
            (STATE, memoryview(json.dumps(state).encode())),
        ):
            _write_file(partial / name, data, getting_on)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HardwareError(
                f"no space left for a snapshot in {target.parent}; free some, or set SFT_JOB_HOME"
            ) from error
        raise


def hooks_state(folder: Path) -> Any:
    """What the user's own code knew then; None where it said nothing."""
    return json.loads((folder / STATE).read_text(encoding="utf-8")).get("hooks")


def _file(tensors: Tensors) -> memoryview:
    packed = tensors if isinstance(tensors, Packed) else pack(tensors)
    return packed.file.numpy().data


def _write_file(path: Path, data: memoryview, getting_on: Callable[[], object]) -> None:
    with path.open("wb", buffering=0) as file:
        for at in range(0, len(data), BLOCK_BYTES):
            block = data[at : at + BLOCK_BYTES]
            while block:
                block = block[file.write(block) :]
            os.fsync(file.fileno())
            getting_on()


def read_tensors(path: Path) -> Tensors:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@torch.no_grad()
def restore_parameters(folder: Path, model: Any, shared: bool = False) -> None:
    """Copy the stored tensors into the model's parameters of the same names. `shared`: as `Stored` has it.

    Raises: DataError when names or shapes differ: the checkpoint is another model's.
    """
    parameters = trainable_parameters(model)
    stored = Stored(folder / TRAINABLE, _device(parameters), shared)
    check_same(stored, {name: list(parameter.shape) for name, parameter in parameters.items()})
    for name, parameter in parameters.items():
        parameter.copy_(stored.tensor(name))


def check_same(stored: Stored, shapes: dict[str, list[int]]) -> None:
    """Raises: DataError when names or shapes differ: the checkpoint is another model's."""
    if stored.shapes.keys() != shapes.keys():
        odd = sorted(stored.shapes.keys() ^ shapes.keys())
        raise DataError(f"the checkpoint's parameters are not this model's: {odd[0]} and {len(odd) - 1} more differ")
    for name, shape in shapes.items():
        if stored.shapes[name][1] != shape:
            raise DataError(f"the checkpoint's {name} has shape {stored.shapes[name][1]}, the model's {shape}")


def restore_optimizer(
    folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer, shared: bool = False
) -> None:
    """Give each parameter its stored state; the optimizer's own loader places and casts it."""
    parameters = trainable_parameters(model)
    stored = Stored(folder / OPTIMIZER, _device(parameters), shared)
    by_name: dict[str, dict[str, Any]] = {}
    for key in stored.shapes:
        kind, name = key.split("/", 1)
        by_name.setdefault(name, {})[kind] = stored.tensor(key)
    names = {parameter: name for name, parameter in parameters.items()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    counts_in_tensors = type(optimizer).__module__.startswith("torch.")
    whole = optimizer.state_dict()
    whole["state"] = {
        at: {**by_name[name], "step": _step_count(by_name[name].get("step", step), counts_in_tensors)}
        for at, name in enumerate(ordered)
        if name in by_name
    }
    optimizer.load_state_dict(whole)


def _device(parameters: dict[str, torch.nn.Parameter]) -> torch.device:
    return next(iter(parameters.values())).device


def _step_count(count: torch.Tensor | int, in_tensors: bool) -> torch.Tensor | int:
    return torch.tensor(float(count)) if in_tensors else int(count)
