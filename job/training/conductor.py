"""What a rank does at each step boundary: log, evaluate, sample, snapshot, stop. In that order, on all ranks alike.

An evaluation that is due comes before the snapshot, so that the commit carries it; a stop skips it, and whoever
resumes at that step finds it missing and does it first.
"""

import math
import time
from collections.abc import Callable
from typing import Any

from job.config import RunConfig
from job.errors import ConfigError, NotFinite
from job.rundir import EventWriter, RunDir, Spec
from job.training.batches import Schedule
from job.training.boundary import Boundary
from job.training.dataset import PreparedRows
from job.training.evaluation import evaluate
from job.training.hooks import Hooks
from job.training.snapshot_writer import SnapshotWriter
from job.training.trainer import Trainer

SIGN_OF_LIFE_SECONDS = 2.0  # at most so often in an evaluation, while samples are made or a snapshot is written
SHOWN_ROWS = 8

Samples = list[dict[str, str]]  # {"prompt", "generation"}


class Conductor:
    """Bound to its trainer before training begins. Only rank 0 writes events and snapshots."""

    def __init__(
        self,
        run: RunDir,
        spec: Spec,
        config: RunConfig,
        schedule: Schedule,
        rank: int,
        events: EventWriter,
        evaluation_rows: PreparedRows | None,
        sample: Callable[[Callable[[], bool]], Samples],
        hooks: Hooks,
        announce: Callable[[Trainer], None],
    ) -> None:
        """`announce` says what begins, once it is known how it is laid out."""
        self._run, self._config, self._schedule, self._rank = run, config, schedule, rank
        self._events, self._rows, self._sample, self._hooks = events, evaluation_rows, sample, hooks
        self._announce = announce
        self.evaluations: list[dict[str, Any]] = list(spec.evaluations)
        self._resume_step = spec.resume_step or 0
        self._stopped = self._through = False
        self.last_step = self._resume_step
        self._samples: dict[int, Samples] = {}
        self._interval = config.checkpoint.interval()
        self._last_snapshot = self._last_step = self._last_sign = time.monotonic()
        self._snapshot_step = self._resume_step
        self._writer = SnapshotWriter(run, self._snapshot_written, self._getting_on) if rank == 0 else None
        self.trainer: Trainer

    @property
    def stopped(self) -> bool:
        """The run was stopped before its work was complete; the last snapshot is where to go on."""
        return self._stopped

    @property
    def over(self) -> bool:
        """No further step is to be taken in this attempt."""
        return self._stopped or self._through

    def stop_requested(self) -> bool:
        """Looked at between any two pieces of work; long ones show by it that they get on."""
        self._getting_on()
        return self._run.stop_requested() is not None

    def _getting_on(self) -> None:
        """A snapshot on a slow disk does too: training may have to wait for it."""
        if time.monotonic() - self._last_sign >= SIGN_OF_LIFE_SECONDS:
            self._last_sign = time.monotonic()
            self._events.write("alive")

    def checkpoint_due(self, step: int) -> bool:
        if self._interval is not None and self._interval.steps is not None:
            return step % self._interval.steps == 0
        seconds = self._interval.seconds if self._interval is not None else self._run.checkpoint_seconds()
        return time.monotonic() - self._last_snapshot >= (seconds or math.inf)

    def ready(self) -> None:
        if self._writer is not None:
            self._writer.begin(self.trainer.held.capturer)

    def rehearse(self) -> None:
        if self._writer is not None:
            self._writer.rehearse()
        else:
            self.trainer.held.take_part()

    def tried(self, peak_bytes: int | None) -> None:
        self._events.write("trial", token_budget=self.trainer.layout.token_budget, peak_bytes=peak_bytes)

    def begun(self) -> None:
        """Do the evaluation that was due at the step we resume from and was not done; see to runs that are through."""
        self._announce(self.trainer)
        step, best_before = self._resume_step, self._best_step()
        if self._all_stop():
            self._stop(step)
            return
        if step and self._evaluation_due(step):
            if not self._evaluate(step):
                self._stop(step)
                return
            if step >= self._schedule.steps or self._new_best(best_before):
                self._take_snapshot(step, self._new_best(best_before))
        self._through = bool(step) and self._patience_spent()
        self._last_step = time.monotonic()

    def step_done(self, boundary: Boundary) -> bool:
        step = self.last_step = boundary.step
        self._log(boundary)
        if not boundary.finite:
            rows = [int(row) for row in self._schedule.rows_of(step)]
            shown = f"{rows[:SHOWN_ROWS]}{'...' if len(rows) > SHOWN_ROWS else ''}"
            exact = "" if self._config.model.precision == "fp32" else " or model.precision: fp32"
            message = f"the loss or gradient of step {step} is not finite (rows {shown} of the prepared data, from 0); "
            message += f"a lower train.learning_rate{exact} may help"
            self._events.write("not_finite", step=step, row_ids=rows, message=message)
            raise NotFinite(message)
        if boundary.stop:
            self._stop(step)
            return True
        best_before = self._best_step()
        if self._evaluation_due(step) and not self._evaluate(step):
            self._stop(step)
            return True
        if self._samples_due(step):
            if not self._generate(step):
                self._stop(step)
                return True
            self._show_samples(step)
        new_best = self._new_best(best_before)
        if self._patience_spent():
            best = self._config.best
            text = f"no better {best.metric} in {best.patience} evaluations, the best is step {self._best_step()}'s"
            self._events.write("log", message=f"step {step}/{self._schedule.steps}  ends the run: {text}")
        ends = step >= self._schedule.steps or self._patience_spent()
        if boundary.checkpoint or ends or new_best:
            self._take_snapshot(step, new_best)
        self._last_step = time.monotonic()
        self._through = ends
        return ends

    def finish(self) -> None:
        """Wait until the last snapshot is on disk."""
        if self._writer is not None:
            self._writer.wait()

    # ---- snapshots

    def _stop(self, step: int) -> None:
        self._stopped = True
        if step > self._snapshot_step:
            self._take_snapshot(step, new_best=False)

    def _take_snapshot(self, step: int, new_best: bool) -> None:
        begun = time.monotonic()
        if self._writer is not None:
            self._writer.take(step, self.evaluations, needed=new_best, hooks=self._hooks.saved())
        else:
            self.trainer.held.take_part()
        self._snapshot_step, self._last_snapshot = step, time.monotonic()
        self._events.write("snapshot", step=step, blocked_seconds=round(time.monotonic() - begun, 4))

    def _snapshot_written(self, step: int, seconds: float) -> None:
        self._events.write("snapshot_written", step=step, seconds=round(seconds, 4))

    # ---- evaluation

    def _evaluation_due(self, step: int) -> bool:
        if self._rows is None or any(done["step"] == step for done in self.evaluations):
            return False
        every = self._config.train.eval_steps
        steps = self._schedule.steps_per_epoch if every == "epoch" else int(every)
        return step % steps == 0 or step >= self._schedule.steps

    def _evaluate(self, step: int) -> bool:
        """Returns whether it was completed; the same on every rank."""
        assert self._rows is not None
        metrics = evaluate(self.trainer, self._rows, self._hooks, self.stop_requested)
        if metrics is None:
            return False
        if self._config.best.metric not in metrics:
            raise ConfigError(f"best.metric {self._config.best.metric} is not computed; there are {', '.join(metrics)}")
        if self._config.samples.every == "eval" and not self._generate(step):
            return False
        self.evaluations.append({"step": step, **metrics})
        self._events.write("evaluation", step=step, metrics=metrics)
        self._show_samples(step)
        return True

    # ---- samples: made by rank 0 while the others wait, or help where none has the whole model

    def _generate(self, step: int) -> bool:
        """Returns whether they were completed; the same on every rank."""
        if self._config.samples.prompts and (self._rank == 0 or self.trainer.held.sharded):
            self._samples[step] = self._sample(self._all_stop if self.trainer.held.sharded else self.stop_requested)
        return not self._all_stop()

    def _all_stop(self) -> bool:
        return bool(self.trainer.agreement.sum(self.stop_requested())[0])

    def _samples_due(self, step: int) -> bool:
        every = self._config.samples.every
        return isinstance(every, int) and step % every == 0

    def _show_samples(self, step: int) -> None:
        if rows := self._samples.get(step):
            self._events.write("samples", step=step, rows=rows)

    def sample_at_end(self) -> bool:
        """Unless the last evaluation did. Returns whether they were completed, the same on every rank."""
        if self.last_step in self._samples:
            return not self._all_stop()
        completed = self._generate(self.last_step)
        self._show_samples(self.last_step)
        return completed

    def _best_step(self) -> int | None:
        return self._config.best.step_of(self.evaluations)

    def _new_best(self, before: int | None) -> bool:
        """Only where the best weights become the result: then they need a commit of their own."""
        return self._config.best.final == "best" and self._best_step() != before

    def _patience_spent(self) -> bool:
        patience, best = self._config.best.patience, self._best_step()
        return patience is not None and sum(done["step"] > (best or 0) for done in self.evaluations) >= patience

    def _log(self, boundary: Boundary) -> None:
        step, now = boundary.step, time.monotonic()
        self._events.write(
            "step",
            step=step,
            epoch=self._schedule.epoch(step),
            loss=boundary.loss,
            grad_norm=boundary.grad_norm,
            learning_rate=boundary.learning_rate,
            tokens=boundary.trained_tokens,
            seconds=now - self._last_step,
            logged=step % self._config.train.logging_steps == 0 or step in (1, self._schedule.steps),
        )
