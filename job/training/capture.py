"""The copy of a run's state to host memory: all that the training loop waits for when a snapshot is taken.

On a GPU it does not even wait for that: the copy is queued on a stream of its own, and the optimizer's next step, which
would overwrite what is being copied, waits for it on the GPU.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from job.training.buffers import HostBuffer
from job.training.packed import Kinds, Tensors, kinds
from job.training.snapshot import Snapshot, trainable_parameters


def state_of(step: int | None, trainable: Tensors, optimizer: torch.optim.Optimizer) -> Tensors:
    """The optimizer's tensors as a snapshot of `step` names them, not copied. None: as if all counts were the step."""
    found = {
        f"{key}/{name}": value
        for name, parameter in trainable.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
    counts = {key: value for key, value in found.items() if key.startswith("step/")}
    whole = {} if step is None else _whole(counts)
    odd = {key: torch.as_tensor(counts[key]) for key, count in whole.items() if count != step}
    tensors = {
        key: value for key, value in found.items() if key not in counts and isinstance(value, torch.Tensor)
    }  # fmt: skip
    return tensors | odd


def _whole(counts: Mapping[str, Any]) -> dict[str, int]:
    """In one look per device: hundreds of numbers on a GPU are hundreds of waits for it."""
    whole = {key: int(count) for key, count in counts.items() if not isinstance(count, torch.Tensor)}
    by_device: dict[torch.device, list[str]] = {}
    for key, count in counts.items():
        if isinstance(count, torch.Tensor):
            by_device.setdefault(count.device, []).append(key)
    for keys in by_device.values():
        found = torch.stack([counts[key] for key in keys]).flatten().tolist()
        whole.update({key: int(count) for key, count in zip(keys, found, strict=True)})
    return whole


class Capturing(Protocol):
    """Takes snapshots of what is trained, however it is held."""

    gpu: torch.device | None

    def after_a_step(self, look: Callable[..., None]) -> None: ...
    def kinds(self) -> tuple[Kinds, Kinds]: ...
    def capture(self, step: int, evaluations: list[dict[str, Any]], buffer: HostBuffer) -> Snapshot: ...


class Capturer:
    """Takes snapshots of one model and its optimizer, which this rank holds whole."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer) -> None:
        self._trainable: Tensors = dict(trainable_parameters(model))
        self._optimizer = optimizer
        gpus = {value.device for value in self._trainable.values() if value.device.type == "cuda"}
        self.gpu = gpus.pop() if gpus else None
        self._side = SideStream(self.gpu, optimizer) if self.gpu else None

    def after_a_step(self, look: Callable[..., None]) -> None:
        """Have `look` called after each step of the optimizer."""
        self._optimizer.register_step_post_hook(look)

    def kinds(self) -> tuple[Kinds, Kinds]:
        """Of the two files, as far as can be told before a snapshot is taken."""
        return kinds(self._trainable), kinds(state_of(None, self._trainable, self._optimizer))

    @torch.no_grad()
    def capture(self, step: int, evaluations: list[dict[str, Any]], buffer: HostBuffer) -> Snapshot:
        """The snapshot lies in `buffer` until that is used again; `copied` says when it is all there."""
        optimizer = state_of(step, self._trainable, self._optimizer)
        files = buffer.fit(kinds(self._trainable), kinds(optimizer))
        targets = [file[name] for file, of in zip(files, (self._trainable, optimizer), strict=True) for name in of]
        sources = [*self._trainable.values(), *optimizer.values()]
        if self._side is None:
            _copy_on_one_core(targets, sources)
            return Snapshot(step, *files, list(evaluations))
        return Snapshot(step, *files, list(evaluations), self._side.copy(targets, sources))


def _copy_on_one_core(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    """More are no quicker: they wait for each other at each of the hundreds of tensors. Where others use the cores too,
    milliseconds become seconds that way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch._foreach_copy_(targets, sources)
    finally:
        torch.set_num_threads(threads)


class SideStream:
    """Copies from a GPU beside its work, into pinned memory."""

    def __init__(self, gpu: torch.device, optimizer: torch.optim.Optimizer) -> None:
        self._cuda: Any = torch.cuda  # has no types
        self._gpu, self._stream = gpu, self._cuda.Stream(gpu)
        self._copied: torch.cuda.Event | None = None
        optimizer.register_step_pre_hook(self._hold_back)

    def copy(self, targets: list[torch.Tensor], sources: list[torch.Tensor]) -> Callable[[], None]:
        """Queued behind all that the GPU was given so far. What is returned waits for its end, and must be called."""
        copied = self._cuda.Event(blocking=True)
        self._stream.wait_stream(torch.cuda.current_stream(self._gpu))
        with torch.cuda.stream(self._stream):
            torch._foreach_copy_(targets, sources, non_blocking=True)
            copied.record(self._stream)
        self._copied = copied

        def wait() -> None:
            copied.synchronize()
            sources.clear()  # until here nothing else may be given their memory

        return wait

    def _hold_back(self, *_: object) -> None:
        if self._copied is not None:
            torch.cuda.current_stream(self._gpu).wait_event(self._copied)
