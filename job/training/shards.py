"""What is trained under ZeRO: gathered and told parameter by parameter, so that no rank ever holds more than one whole.

DeepSpeed keeps the fp32 parameters and AdamW's two averages as flat partitions, each rank its part. At stages 1 and 2
`safe_get_full_*` and `safe_set_full_*` reach a parameter's place in them by name. At stage 3 the setters miscount where
a size is no multiple of the world's, so a rank's own part is written here. The copy a forward pass reads (bf16, or the
same numbers) is written too: the setters leave it alone.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)

from job.training.buffers import HostBuffer
from job.training.capture import Capturing
from job.training.packed import Kinds, Tensors
from job.training.snapshot import OPTIMIZER, TRAINABLE, Snapshot, check_same, trainable_parameters
from job.training.stored import Stored

AVERAGES = ("exp_avg", "exp_avg_sq")


class Shards:
    """Of one model and its DeepSpeed optimizer, before the first step or after any."""

    def __init__(self, model: Any, optimizer: Any, before: Tensors, device: torch.device) -> None:
        """`optimizer`: DeepSpeed's. `device`: this rank's, whatever is offloaded.

        `before`: the trained tensors as they were loaded, those that were whole then; DeepSpeed made its fp32 copies
        of what it had cast to the compute type.
        """
        self._optimizer, self.device = optimizer, device
        self._parameters = trainable_parameters(model)
        self.sharded = self._stage3 = any(hasattr(parameter, "ds_id") for parameter in self._parameters.values())
        self.capturer: Capturing = ShardCapturer(self)
        self._make_state()
        for name, tensor in before.items():
            self._set(name, None, tensor.to(self.device))

    # ---- every tensor whole, one after the other

    def shapes(self) -> dict[str, torch.Size]:
        return {
            name: getattr(parameter, "ds_shape", parameter.shape)  # at stage 3 the parameter itself is empty
            for name, parameter in self._parameters.items()
        }

    def whole(self) -> Iterator[tuple[str | None, str, torch.Tensor]]:
        """(None for the parameter itself | which average, name, fp32 tensor on the device): on all ranks together."""
        for name, parameter in self._parameters.items():
            yield None, name, safe_get_full_fp32_param(parameter)
            for key in AVERAGES:
                yield key, name, safe_get_full_optimizer_state(parameter, key)

    def take_part(self) -> None:
        for _ in self.whole():
            pass

    def tensors(self) -> Tensors | None:
        found, shapes = {}, self.shapes()
        for name, parameter in self._parameters.items():
            tensor = safe_get_full_fp32_param(parameter).view(shapes[name])
            if dist.get_rank() == 0:
                found[name] = tensor.cpu()
        return found if dist.get_rank() == 0 else None

    @torch.no_grad()
    def restore(self, step: int, folder: Path) -> None:
        shapes = {name: list(shape) for name, shape in self.shapes().items()}
        trained = Stored(folder / TRAINABLE, self.device, shared=True)
        check_same(trained, shapes)
        for name in shapes:
            self._set(name, None, trained.tensor(name))
        state = Stored(folder / OPTIMIZER, self.device, shared=True)
        for key in AVERAGES:
            for name in shapes:
                if f"{key}/{name}" in state.shapes:  # one that never had a gradient has no averages
                    self._set(name, key, state.tensor(f"{key}/{name}"))
        self._count(step)

    def step_of_trial(self) -> None:
        """DeepSpeed's backward pass was one."""

    def forget_trial(self) -> None:
        for flat in self._flats():
            for key in AVERAGES:
                self._base.state[flat][key].zero_()
        self._count(0)

    # ---- DeepSpeed's own partitions

    @property
    def _base(self) -> torch.optim.Optimizer:
        base: torch.optim.Optimizer = self._optimizer.optimizer
        return base

    def after_a_step(self, look: Callable[..., None]) -> None:
        self._base.register_step_post_hook(look)

    def _flats(self) -> list[torch.Tensor]:
        """This rank's flat fp32 partitions, as the three kinds of ZeRO optimizer name them."""
        for name in ("fp32_partitioned_groups_flat", "fp32_groups_flat_partition", "single_partition_of_fp32_groups"):
            if (found := getattr(self._optimizer, name, None)) is not None:
                return list(found)
        raise AssertionError(f"{type(self._optimizer).__name__} has no partitions that are known")

    def _make_state(self) -> None:
        """What the first step would make: torch's AdamW begins with zeros, and ZeRO's addresses point into them."""
        for flat in self._flats():
            state = self._base.state[flat]
            for key in AVERAGES:
                state[key] = torch.zeros_like(flat)
        self._count(0)
        if not self._stage3:
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _count(self, step: int) -> None:
        for flat in self._flats():
            self._base.state[flat]["step"] = torch.tensor(float(step), device=flat.device)

    @torch.no_grad()
    def _set(self, name: str, key: str | None, value: torch.Tensor) -> None:
        """`value`: whole, the same on all ranks."""
        parameter = self._parameters[name]
        if self._stage3:
            self._set_own_part(parameter, key, value)
            if key is None:
                with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
                    parameter.data.copy_(value.view(parameter.shape))
        elif key is None:
            safe_set_full_fp32_param(parameter, value.float())
            parameter.data.copy_(value)
        else:
            safe_set_full_optimizer_state(parameter, value, key)

    def _set_own_part(self, parameter: Any, key: str | None, value: torch.Tensor) -> None:
        part, _ = self._optimizer._get_fp32_opt_state_partition(parameter, False, key)
        first = parameter.ds_tensor.ds_numel * self._optimizer._get_param_partition_rank(parameter)
        flat = value.flatten()[first : first + part.numel()].float()
        part.zero_()
        part[: flat.numel()].copy_(flat)


class ShardCapturer:
    """Takes a snapshot while the other ranks take part. The loop waits for all of it: gathering is everybody's work."""

    gpu: torch.device | None

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self.gpu = shards.device if shards.device.type == "cuda" else None

    def after_a_step(self, look: Callable[..., None]) -> None:
        self._shards.after_a_step(look)

    def kinds(self) -> tuple[Kinds, Kinds]:
        shapes = self._shards.shapes().items()
        return (
            [(name, torch.float32, shape) for name, shape in shapes],
            [(f"{key}/{name}", torch.float32, shape) for name, shape in shapes for key in AVERAGES],
        )

    @torch.no_grad()
    def capture(self, step: int, evaluations: list[dict[str, Any]], buffer: HostBuffer) -> Snapshot:
        trainable, optimizer = buffer.fit(*self.kinds())
        for key, name, tensor in self._shards.whole():
            target = trainable[name] if key is None else optimizer[f"{key}/{name}"]
            target.copy_(tensor.view(target.shape))
        return Snapshot(step, trainable, optimizer, list(evaluations))
