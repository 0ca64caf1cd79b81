"""What a step of ours takes beside one of a bare accelerate loop: the same model, batches, loss, optimizer and ranks.

The rank is job.train's own story. Its conductor is told to go through the bare loop's steps after every few of ours:
the same step numbers, on a copy of the model that accelerate has prepared. So both are measured in the same seconds,
and as neither has a schedule nor dropout, both must find the same losses.
Started as `python -m tests.bench.step_cost RUN_DIR` on each rank; leaves `step_cost.json` there.
"""

import copy
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import rank_folder

BLOCK_STEPS = 5
WARM_STEPS = 10
ROWS_EACH = 8  # of a rank, in a step
RECORD = "step_cost.json"
WALL, CPU = 0, 1


Clocks = tuple[float, float]  # (wall, CPU of rank 0) in seconds


@dataclass(frozen=True)
class StepCost:
    """Of each step that was measured, the same steps in both."""

    ranks: int
    ours: list[Clocks]
    bare: list[Clocks]

    def bare_seconds(self, clock: int = WALL) -> float:
        return statistics.median(step[clock] for step in self.bare)

    def extra_seconds(self, clock: int = WALL) -> float:
        """Median of what each step took more than the bare one of the same rows."""
        return statistics.median(ours[clock] - bare[clock] for ours, bare in zip(self.ours, self.bare, strict=True))


def measured(hidden: int, layers: int, ranks: int, steps: int) -> StepCost:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rank_folder.make_base(root / "base", hidden, layers)
        plain = {"train.lr_scheduler_type": "constant", "train.warmup_steps": 0, "train.weight_decay": 0.0}
        strategy = {"parallel.strategy": "ddp" if ranks > 1 else "single"}
        length = {"train.max_steps": WARM_STEPS + steps + 1, "train.global_batch_size": ROWS_EACH * ranks}
        run = rank_folder.prepared(root, {**plain, **strategy, **length})
        rank_folder.ranks("tests.bench.step_cost", [str(run.path)], ranks, root)
        return StepCost(ranks, **json.loads((run.path / RECORD).read_text(encoding="utf-8")))


def comparable(ours: Sequence[Any], bare: Sequence[Any], block: int = BLOCK_STEPS, warm: int = WARM_STEPS) -> list[int]:
    """Places of the steps that count: not the first ones of all, nor the first of a block, which finds the caches
    full of the other loop's."""
    return [at for at in range(min(len(ours), len(bare))) if at >= warm and at % block]


# ---- on a rank


def clocks() -> Clocks:
    return time.perf_counter(), time.process_time()


def since(begun: Clocks) -> Clocks:
    now = clocks()
    return now[WALL] - begun[WALL], now[CPU] - begun[CPU]


class Bare:
    """A loop as accelerate's documentation has it."""

    def __init__(self, model: Any, trainer: Any) -> None:
        import torch
        from accelerate import Accelerator, DistributedDataParallelKwargs

        kwargs = DistributedDataParallelKwargs(broadcast_buffers=False)
        self.accelerator = Accelerator(cpu=True, kwargs_handlers=[kwargs])
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=trainer.args.learning_rate, weight_decay=0.0, fused=True)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model.train()
        self.trainer = trainer

    def step(self, step: int) -> float:
        """The loss of this rank's share of the step."""
        from contextlib import nullcontext

        import torch

        from job.training.loss import summed_loss
        from job.training.steps import shares

        told = self.trainer
        ids = told.schedule.rows_of(step)
        trained = int(told.rows.trained[ids].sum())
        micros = [micro for _, micro in shares(told.rows, ids.tolist(), told.layout)]
        total = torch.zeros(())
        for at, micro in enumerate(micros):
            with nullcontext() if at == len(micros) - 1 else self.accelerator.no_sync(self.model):
                loss = summed_loss(self.model, micro, told.skips_untrained) / trained
                self.accelerator.backward(loss * told.layout.world_size)
            total += loss.detach()
        self.accelerator.clip_grad_norm_(self.model.parameters(), told.args.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(total)


def rank(folder: Path) -> None:
    from job import train
    from job.rundir import RunDir

    load, untouched = train.load_model, []

    def loaded(*told: Any) -> Any:
        model = load(*told)  # its tensors lie in mapped files: a multiplication there takes some 3 % longer or shorter
        untouched.append(copy.deepcopy(model))  # before TRL puts a forward of its own in its place
        return copy.deepcopy(model)

    class InTurns(train.Conductor):
        def begun(self) -> None:
            super().begun()
            self._bare = Bare(untouched.pop(), self.trainer)
            self._ours: list[Clocks] = []
            self._bares: list[Clocks] = []
            self._losses: list[float] = []
            self._done = clocks()

        def step_done(self, boundary: Any) -> bool:
            ends = super().step_done(boundary)
            self._ours.append(since(self._done))
            self._losses.append(boundary.loss)
            if boundary.step % BLOCK_STEPS == 0:
                self._take_turns(boundary.step)
            if ends and self._rank == 0:
                self._leave_record()
            self._done = clocks()
            return ends

        def _take_turns(self, last: int) -> None:
            steps, losses = range(last - BLOCK_STEPS + 1, last + 1), []
            for step in steps:
                begun = clocks()
                losses.append(self._bare.step(step))
                self._bares.append(since(begun))
            # Ranks meet once a block, not between two steps: there the slower one would be waited for unmeasured.
            for step, whole in zip(steps, self.trainer.agreement.sum(*losses), strict=True):
                assert np.isclose(self._losses[step - 1], whole, rtol=1e-5), f"another loss at step {step}: {whole}"

        def _leave_record(self) -> None:
            places = comparable(self._ours, self._bares)
            record = {name: [all_[at] for at in places] for name, all_ in (("ours", self._ours), ("bare", self._bares))}
            (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")

    train.load_model, train.Conductor = loaded, InTurns
    train.train(RunDir(folder), int(os.environ.get("RANK", "0")))


if __name__ == "__main__":
    rank(Path(sys.argv[1]))
    os._exit(0)  # as job.train leaves
