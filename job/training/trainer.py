"""TRL's SFTTrainer with our own batches, loss, step boundary and restore; everything else of it is switched off.

At each step boundary all ranks agree, by one small sum on the CPU, whether to stop, whether a checkpoint is due and
whether the loss is finite: so all of them act at the same step.
"""

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from job.training.batches import Schedule
from job.training.dataset import PreparedRows
from job.training.loss import summed_loss
from job.training.model import accepts
from job.training.snapshot import restore_optimizer, restore_parameters
from job.training.steps import Agreement, Layout, StepBatch, StepLoader, seed_everything


@dataclass(frozen=True)
class Boundary:
    """What happened in one step, the same on every rank."""

    step: int
    loss: float
    finite: bool
    stop: bool
    checkpoint: bool
    grad_norm: float
    learning_rate: float
    trained_tokens: int


class Conductor(Protocol):
    """What the story of the rank decides at a step boundary."""

    @property
    def over(self) -> bool: ...
    def begun(self) -> None:
        """Everything is restored; no step of this attempt was taken yet."""
        ...

    def stop_requested(self) -> bool: ...
    def checkpoint_due(self, step: int) -> bool: ...
    def step_done(self, boundary: Boundary) -> bool:
        """Returns whether training ends here."""
        ...


class _Begun(TrainerCallback):  # type: ignore[misc]
    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._conductor.begun()


class Trainer(SFTTrainer):  # type: ignore[misc]
    """Trains `schedule` from step `done` on, on this rank's share of every global batch."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        arguments: SFTConfig,
        rows: PreparedRows,
        schedule: Schedule,
        at: Layout,
        conductor: Conductor,
        resume: tuple[int, Path] | None,
    ) -> None:
        self.rows, self.schedule, self.layout, self.conductor = rows, schedule, at, conductor
        self._resume = resume
        self.skips_untrained = accepts(model, "logits_to_keep")
        self._seen_step = resume[0] if resume else 0
        self._trained_tokens = 0
        placeholder = Dataset.from_dict({"input_ids": [[0, 0]], "labels": [[0, 0]]})  # SFTTrainer insists on a data set
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=placeholder,
            processing_class=tokenizer,
            data_collator=lambda items: items,
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(_Begun(conductor))
        self.agreement = Agreement(at.world_size)

    # ---- our batches

    def get_train_dataloader(self) -> StepLoader:
        return StepLoader(self.rows, self.schedule, self.layout, self._seen_step, lambda: self.conductor.over)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[StepBatch], None]:
        batch = next(epoch_iterator, None)
        return ([] if batch is None else [batch]), None

    # ---- our loss

    def training_step(self, model: Any, inputs: StepBatch, num_items_in_batch: Any = None) -> torch.Tensor:
        """The share of the global batch's mean loss that this rank's micro-batches make up; summed over ranks it is
        the loss of the step. DDP averages gradients over ranks, hence the factor world size."""
        model.train()
        seed_everything(self.args.seed, inputs.step, self.layout.rank)
        self._trained_tokens = inputs.trained_tokens
        total = torch.zeros((), device=self.layout.device)
        for at, micro in enumerate(inputs.micros):
            last = at == len(inputs.micros) - 1
            with nullcontext() if last else self.accelerator.no_sync(model), self.compute_loss_context_manager():
                loss = summed_loss(model, micro, self.skips_untrained) / inputs.trained_tokens
                self.accelerator.backward(loss * self.layout.world_size)
            total += loss.detach()
        return total

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    # ---- the step boundary: called after every optimizer step, and once more when an epoch ends

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: Any,
        model: Any,
        trial: Any,
        epoch: Any,
        ignore_keys_for_eval: Any,
        start_time: float,
        learning_rate: float | None = None,
    ) -> None:
        step = self.state.global_step
        if step == self._seen_step:
            return
        self._seen_step = step
        loss = float(tr_loss)
        tr_loss -= tr_loss
        norm = float(grad_norm)
        finite = np.isfinite(loss) and np.isfinite(norm)
        stop, checkpoint, broken, whole_loss = self.agreement.sum(
            self.conductor.stop_requested(), self.conductor.checkpoint_due(step), not finite, loss if finite else 0.0
        )
        ends = self.conductor.step_done(
            Boundary(
                step,
                whole_loss if not broken else float("nan"),
                not broken,
                stop > 0,
                checkpoint > 0,
                norm,
                float(learning_rate or 0.0),
                self._trained_tokens,
            )
        )
        if ends:
            self.control.should_training_stop = True

    # ---- restore by name: the Trainer's own files are never written or read

    def _load_from_checkpoint(self, resume_from_checkpoint: Any, model: Any = None) -> None:
        assert self._resume is not None
        restore_parameters(self._resume[1], self.model)

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Nothing to restore: every step seeds itself."""

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        if self._resume is None:
            return
        step, folder = self._resume
        restore_optimizer(folder, step, self.model, self.own_optimizer)
        scheduler = self.lr_scheduler
        scheduler.last_epoch, scheduler._step_count = step, step + 1
        rates = [base * scale(step) for base, scale in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
        for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler._last_lr = rates

    @property
    def own_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer itself, without accelerate's wrapper."""
        wrapped: Any = self.optimizer
        own: torch.optim.Optimizer = getattr(wrapped, "optimizer", wrapped)
        return own

    def resume_folder(self) -> str | None:
        """A folder with the one file of the Trainer's that its loop reads on resume: the step."""
        if self._resume is None:
            return None
        folder = Path(self.args.output_dir) / "resume"
        folder.mkdir(parents=True, exist_ok=True)
        state = {"global_step": self._resume[0], "train_batch_size": 1, "log_history": []}
        (folder / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
        return str(folder)
