"""What training really holds, counted tensor by tensor on the CPU: every storage that lives, from birth to end."""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from job.config import RunConfig
from job.host.shape import Shape, Tensor, shape_of
from job.storage.headers import folder_heads
from job.storage.model_files import read_json
from job.training.loss import micro_batch, summed_loss
from job.training.model import load_model


class Living(TorchDispatchMode):  # type: ignore[misc]
    """Bytes of all storages that operations made, and of those it is shown, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self._refs: dict[int, weakref.ref[Any]] = {}
        self.bytes = self.peak = 0

    def show(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.show(leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor))
        return out

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._refs:
            return

        def gone(_: Any) -> None:
            self._refs.pop(key, None)
            self.bytes -= size

        self._refs[key] = weakref.ref(storage, gone)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)


@dataclass(frozen=True)
class Held:
    """Bytes, counted."""

    parameters: int  # frozen and trained
    gradients: int
    optimizer: int
    passing: int  # the rest, at the fullest moment of a micro-batch with all of these there


def random_base(folder: Path, architecture: Any) -> Shape:
    """A model of that transformers config with random weights, saved; its shape as read from its files."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(architecture, dtype=torch.float32).save_pretrained(folder)
    return shape_of(
        read_json(folder / "config.json", "config.json"), [Tensor(*head) for head in folder_heads(folder)], str(folder)
    )


def counted(base: Path, config: RunConfig, tokens: int, recompute: bool) -> Held:
    """Micro-batches of two documents, every token trained, as a rank would compute them under `single`."""
    from accelerate.utils import convert_outputs_to_fp32

    model = load_model(base, config, "cpu")
    half = config.model.precision == "bf16"
    if half:
        model.forward = convert_outputs_to_fp32(model.forward)
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, fused=True)
    ids = np.arange(tokens, dtype=np.int32) % 97 + 3
    document = ids[: tokens // 2]
    batch = micro_batch([(document, document.copy())] * 2, False, torch.device("cpu"))

    def train() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            summed_loss(model, batch, skip_untrained=True).backward()

    train()
    optimizer.step()
    states = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    living = Living()
    living.show([*model.parameters(), *model.buffers(), *states, *gradients])
    before = living.bytes
    with living:
        train()
    return Held(_bytes(model.parameters()), _bytes(gradients), _bytes(states), living.peak - before)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
