"""TRL's SFTTrainer with our own batches, loss, step boundary and restore; everything else of it is switched off.

At each step boundary all ranks agree, by one small sum on the CPU, whether to stop, whether a checkpoint is due and
whether the loss is finite: so all of them act at the same step.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from datasets import Dataset
from transformers.trainer_callback import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from job.training import trial
from job.training.batches import Schedule
from job.training.boundary import Boundary, Conductor
from job.training.dataset import PreparedRows
from job.training.held import Held, Whole
from job.training.loss import masked_row, micro_batch, summed_loss
from job.training.model import accepts, keeps_documents_apart
from job.training.snapshot import trainable_parameters
from job.training.steps import Agreement, Layout, StepBatch, StepLoader, seed_everything


class _Begun(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: "Trainer") -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.begin()


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
        compute: torch.dtype = torch.float32,
    ) -> None:
        """`resume`: the step to go on from, and where rank 0 has its snapshot."""
        self.rows, self.schedule, self.layout, self.conductor = rows, schedule, at, conductor
        self._resume, self._compute = resume, compute
        self.skips_untrained = accepts(model, "logits_to_keep")
        self._seen_step = resume[0] if resume else 0
        self._trained_tokens = 0
        placeholder = Dataset.from_dict({"input_ids": [[0, 0]], "labels": [[0, 0]]})  # SFTTrainer insists on a data set
        loaded = {name: parameter.data for name, parameter in trainable_parameters(model).items()}
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=placeholder,
            processing_class=tokenizer,
            data_collator=lambda items: items,
        )
        for name, parameter in trainable_parameters(model).items():
            parameter.data = loaded[name]  # TRL makes adapters bf16 where the base has four bits
        self.remove_callback(PrinterCallback)
        self.add_callback(_Begun(self))
        self.agreement = Agreement(at.world_size)
        self.held: Held

    # ---- our batches

    def get_train_dataloader(self) -> StepLoader:
        return StepLoader(self.rows, self.schedule, lambda: self.layout, self._seen_step, lambda: self.conductor.over)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[StepBatch], None]:
        batch = next(epoch_iterator, None)
        return ([] if batch is None else [batch]), None

    # ---- our loss

    def training_step(self, model: Any, inputs: StepBatch, num_items_in_batch: Any = None) -> torch.Tensor:
        """The share of the global batch's mean loss that this rank's micro-batches make up; summed over ranks it is
        the loss of the step. DDP averages gradients over ranks, hence the factor world size."""
        if not all(module.training for module in self._every_module):  # an evaluation came between
            model.train()  # hundreds of times slower than to look
        seed_everything(self.args.seed, inputs.step, self.layout.rank)
        self._trained_tokens = inputs.trained_tokens
        total = torch.zeros((), device=self.layout.device)
        for at, micro in enumerate(inputs.micros):
            last = at == len(inputs.micros) - 1
            with nullcontext() if last else self.gradients_apart(), self.compute_loss_context_manager():
                loss = summed_loss(model, micro, self.skips_untrained) / inputs.trained_tokens
                self.backward(loss * self.layout.world_size, last)
            total += loss.detach()
        return total

    def gradients_apart(self) -> AbstractContextManager[Any]:
        """What is found in it stays on its rank; DeepSpeed's engine sees to that itself, by `last` below."""
        return nullcontext() if self.is_deepspeed_enabled else self.accelerator.no_sync(self.model_wrapped)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """`last`: of the step's micro-batches, with which DeepSpeed's engine also clips and steps."""
        if self.is_deepspeed_enabled:
            self.accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=last)
        else:
            self.accelerator.backward(loss)

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

    # ---- before the first step: the engine is made, then the state is restored by name, never from Trainer's own files

    def _prepare_for_training(self, *arguments: Any) -> Any:
        """DeepSpeed casts all it is given to the compute type. What is trained is kept as it was, for the fp32 copies;
        buffers get back their own type: rotary frequencies in bf16 tell far positions apart no more."""
        whole = {name: p for name, p in trainable_parameters(self.model).items() if not hasattr(p, "ds_id")}
        before = {name: parameter.detach() for name, parameter in whole.items()} if self.is_deepspeed_enabled else {}
        buffers = dict(self.model.named_buffers())
        if any(hasattr(parameter, "ds_id") for parameter in self.model.parameters()):  # then DeepSpeed casts nothing
            for parameter in whole.values():
                parameter.data = parameter.data.to(self._compute)
        prepared = super()._prepare_for_training(*arguments)
        for name, buffer in self.model.named_buffers():
            if buffer.dtype != buffers[name].dtype:
                module, _, own = name.rpartition(".")
                self.model.get_submodule(module)._buffers[own] = buffers[name].to(buffer.device)
        if self.is_deepspeed_enabled:
            from job.training.shards import Shards  # imports deepspeed

            self.held = Shards(self.model, self.own_optimizer, before, self.layout.device)
        else:
            self.held = Whole(self.model, self.own_optimizer, dist.is_initialized())
        return prepared

    def begin(self) -> None:
        self.layout = replace(
            self.layout, padded=not keeps_documents_apart(self.model, self.layout.device, self._compute)
        )
        self.conductor.ready()
        if trial.due(self.layout.device):
            self.conductor.tried(trial.try_worst(self))
        if self._resume is not None:
            step, folder = self._resume
            self.held.restore(step, folder)
            self._set_schedule(step)
        if dist.is_initialized() and not self.is_deepspeed_enabled:
            self._settle_buckets()
        self._every_module = tuple(self.model_wrapped.modules())
        if not self.is_deepspeed_enabled:  # a module would look for gradients at each frozen weight, too
            self.model_wrapped.zero_grad = self.optimizer.zero_grad
        self.conductor.begun()

    def _settle_buckets(self) -> None:
        """DDP sums gradients in buckets that it fills anew after its first backward pass. Of three numbers or more the
        order of their sum counts, so the first step of a resumed run would have other bits: a row of which nothing is
        trained goes first."""
        row = micro_batch([masked_row(self.rows.row(0))], self.layout.padded, self.layout.device)
        self.model_wrapped.train()
        with self.compute_loss_context_manager():
            self.accelerator.backward(summed_loss(self.model_wrapped, row, self.skips_untrained))
        self.model_wrapped.zero_grad()

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: Any, trial: Any
    ) -> tuple[int, int]:
        super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        self.state.global_step = self._seen_step
        return self._seen_step // steps_per_epoch, 0

    def _set_schedule(self, step: int) -> None:
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

    @property
    def base_optimizer(self) -> torch.optim.Optimizer:
        """Torch's, or bitsandbytes', also where DeepSpeed shards it."""
        own: Any = self.own_optimizer
        base: torch.optim.Optimizer = own.optimizer if self.is_deepspeed_enabled else own
        return base
