"""A snapshot is copied from the GPU while training goes on there, and holds what was there when it was taken."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from job.host.devices import visible_gpus
from job.rundir import RunDir
from job.training.buffers import HostBuffer
from job.training.capture import Capturer
from job.training.packed import Packed
from job.training.snapshot import OPTIMIZER, TRAINABLE, Tensors
from job.training.snapshot_writer import SnapshotWriter

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(visible_gpus() == 0, reason="no CUDA device: there is no /dev/nvidia*"),
]

LAYERS, WIDTH = 48, 1024  # 200 MB of parameters, 600 MB of state
SLEEP_CYCLES = 2 * 10**9  # about a second of the GPU's clock


def fused(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2, fused=True)


def foreach(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2, foreach=True)


def adamw_8bit(parameters: list[Any]) -> torch.optim.Optimizer:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    return bitsandbytes.optim.AdamW8bit(parameters, lr=1e-2)


OPTIMIZERS = {"fused": fused, "foreach": foreach, "adamw_8bit": adamw_8bit}


class Run:
    def __init__(self, kind: str = "fused") -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).cuda()
        self.optimizer = OPTIMIZERS[kind](list(self.model.parameters()))

    def step(self) -> None:
        """Nothing in it waits for the GPU."""
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    def blocking_copy(self) -> tuple[Tensors, Tensors]:
        torch.cuda.synchronize()
        named = dict(self.model.named_parameters())
        state = {
            f"{key}/{name}": value.detach().cpu()
            for name, parameter in named.items()
            for key, value in self.optimizer.state[parameter].items()
            if key != "step" and isinstance(value, torch.Tensor)
        }
        return {name: parameter.detach().cpu() for name, parameter in named.items()}, state


def same(found: Tensors, expected: Tensors) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_next_step_does_not_overwrite_what_is_still_being_copied(kind: str) -> None:
    run = Run(kind)
    run.step()
    capturer = Capturer(run.model, run.optimizer)
    assert capturer.gpu is not None and capturer._side is not None
    buffer = HostBuffer(capturer.gpu)
    for step in (1, 2):
        expected = run.blocking_copy()
        with torch.cuda.stream(capturer._side._stream):
            torch.cuda._sleep(SLEEP_CYCLES)  # the copy begins long after the next steps were queued
        taken = capturer.capture(step, [], buffer)
        copied = capturer._side._copied
        assert copied is not None and not copied.query(), "the loop waited for the copy"
        run.step()
        run.step()
        assert not copied.query(), "a step waited for the copy on the CPU"
        taken.copied()
        assert same(taken.trainable, expected[0])
        assert same({name: value for name, value in taken.optimizer.items() if name in expected[1]}, expected[1])
        assert not same(run.blocking_copy()[0], expected[0])
        run.optimizer.state_dict()  # the steps after the copy were taken, and went well
        torch.cuda.synchronize()


def test_buffers_are_pinned_and_used_again() -> None:
    run = Run()
    capturer = Capturer(run.model, run.optimizer)
    buffer, places = HostBuffer(capturer.gpu), set()
    for step in (1, 2, 3):
        run.step()
        taken = capturer.capture(step, [], buffer)
        taken.copied()
        assert isinstance(taken.trainable, Packed) and isinstance(taken.optimizer, Packed)
        assert taken.trainable.file.is_pinned() and taken.optimizer.file.is_pinned()
        places.add((taken.trainable.file.data_ptr(), taken.optimizer.file.data_ptr()))
    assert len(places) == 1


def test_snapshots_written_while_training_goes_on_are_bit_exact(tmp_path: Path) -> None:
    folder = RunDir(tmp_path / "run").make()
    writer = SnapshotWriter(folder, lambda step, seconds: None)
    run = Run()
    writer.begin(Capturer(run.model, run.optimizer))
    expected: dict[int, tuple[Tensors, Tensors]] = {}
    for step in range(1, 13):
        run.step()
        if step % 3 == 0:
            expected[step] = run.blocking_copy()
            writer.take(step, [], needed=step == 6)
    writer.wait()
    found = folder.whole_snapshots()
    assert found and found[-1][0] == 12
    for step, place in found:
        assert same(load_file(place / TRAINABLE), expected[step][0])
        assert same(load_file(place / OPTIMIZER), expected[step][1])
    assert same(load_file(folder.best / TRAINABLE), expected[6][0])


def test_memory_that_cannot_be_pinned_costs_time_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run()
    run.step()
    capturer = Capturer(run.model, run.optimizer)
    monkeypatch.setattr("job.training.buffers.PORTABLE", 0xFFFF)  # flags that CUDA refuses
    with pytest.warns(UserWarning, match="cannot be pinned"):
        taken = capturer.capture(1, [], HostBuffer(capturer.gpu))
    expected = run.blocking_copy()
    run.step()
    taken.copied()
    assert same(taken.trainable, expected[0]) and same(taken.optimizer, expected[1])
    torch.cuda.synchronize()
