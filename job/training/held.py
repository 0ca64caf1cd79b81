"""How a strategy holds what is trained: whole on every rank (single, ddp), or in shards (ZeRO, see `shards.py`).

Whatever it is, a snapshot has every tensor whole and by its parameter's name, so any other can go on from it.
"""

from pathlib import Path
from typing import Any, Protocol

import torch

from job.training.capture import Capturer, Capturing
from job.training.packed import Tensors
from job.training.snapshot import restore_optimizer, restore_parameters, trainable_parameters


class Held(Protocol):
    """The trained parameters and their optimizer's state. All ranks call the same methods at the same time."""

    sharded: bool  # no rank has the whole model: all must make a text together
    capturer: Capturing

    def take_part(self) -> None:
        """In a snapshot that rank 0 takes."""
        ...

    def restore(self, step: int, folder: Path) -> None:
        """From the snapshot of `step` that rank 0 has in `folder`. Raises: DataError when it is another model's."""
        ...

    def step_of_trial(self) -> None:
        """One step of the optimizer, at a learning rate of zero, if the backward pass was none."""
        ...

    def forget_trial(self) -> None:
        """Gradients and the optimizer's state are as before the first step."""
        ...

    def tensors(self) -> Tensors | None:
        """The trained tensors on the CPU, on rank 0; None where the model itself has them."""
        ...


class Whole:
    """Under single and ddp every rank has all of it."""

    sharded = False

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, shared: bool) -> None:
        """`shared`: there are several ranks, of which only the first reads."""
        self._model, self._optimizer, self._shared = model, optimizer, shared
        self.capturer: Capturing = Capturer(model, optimizer)

    def take_part(self) -> None:
        """Rank 0 has all it needs."""

    def restore(self, step: int, folder: Path) -> None:
        restore_parameters(folder, self._model, self._shared)
        restore_optimizer(folder, step, self._model, self._optimizer, self._shared)

    def step_of_trial(self) -> None:
        for parameter in trainable_parameters(self._model).values():
            if parameter.grad is not None:
                parameter.grad.zero_()  # what overflowed would move the weights at any rate
        self._optimizer.step()

    def forget_trial(self) -> None:
        self._model.zero_grad(set_to_none=True)
        self._optimizer.state.clear()

    def tensors(self) -> Tensors | None:
        return None
