"""The evaluation rows' loss, and the user's own metrics where hooks define some; the same figures on every rank."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from job.training.dataset import PreparedRows
from job.training.hooks import Hooks
from job.training.loss import loss_and_guesses, summed_loss
from job.training.steps import Layout, shares
from job.training.trainer import Trainer

ROWS = 64  # of each rank, between two looks at the stop flag
Tokens = npt.NDArray[np.int64]


def evaluate(
    trainer: Trainer, rows: PreparedRows, hooks: Hooks, stopped: Callable[[], bool]
) -> dict[str, float] | None:
    """{"eval_loss", "eval_perplexity", what the hooks compute}; None where a stop came between.

    `compute_metrics(predictions, labels)` gets two lists with one array of token ids for each evaluation row, in the
    rows' order: what the model thought likeliest at each trained position, and what stands there. On rank 0 alone.
    Raises: ConfigError from the hooks.
    """
    trainer.model.eval()
    at = trainer.layout
    guesses = _Guesses() if hooks.compute_metrics is not None else None
    summed = torch.zeros((), dtype=torch.float64)
    stride = ROWS * at.world_size
    for start in range(0, len(rows), stride):
        if trainer.agreement.sum(stopped())[0]:
            return None
        ids = range(start, min(start + stride, len(rows)))
        with torch.no_grad(), trainer.accelerator.autocast():
            summed += _part(trainer, rows, ids, at, guesses)
    loss = trainer.agreement.sum(float(summed))[0] / int(rows.trained.sum())
    metrics = {"eval_loss": loss, "eval_perplexity": math.exp(min(loss, 700.0))}
    if guesses is not None:
        metrics |= _computed(trainer, hooks, guesses)
    return metrics


class _Guesses:
    """By row: what was guessed, and what stands there."""

    def __init__(self) -> None:
        self.by_row: dict[int, tuple[Tokens, Tokens]] = {}

    def add(self, rows: PreparedRows, micro: list[int], guessed: Tokens, there: Tokens) -> None:
        """`guessed`, `there`: of all trained positions of the micro-batch, its rows one after the other."""
        ends = np.cumsum([int(rows.trained[row]) for row in micro])[:-1]
        for row, ours, theirs in zip(micro, np.split(guessed, ends), np.split(there, ends), strict=True):
            self.by_row[row] = ours, theirs


def _part(trainer: Trainer, rows: PreparedRows, ids: range, at: Layout, guesses: _Guesses | None) -> torch.Tensor:
    summed = torch.zeros((), dtype=torch.float64)
    for micro, batch in shares(rows, ids, at):
        if guesses is None or not micro:
            summed += summed_loss(trainer.model, batch, trainer.skips_untrained).double().cpu()
            continue
        loss, guessed, there = loss_and_guesses(trainer.model, batch, trainer.skips_untrained)
        summed += loss.double().cpu()
        guesses.add(rows, micro, guessed.cpu().numpy(), there.cpu().numpy())
    return summed


def _computed(trainer: Trainer, hooks: Hooks, guesses: _Guesses) -> dict[str, float]:
    """Gathered and computed on rank 0, told to all. What the user's code raises there is raised everywhere."""
    parts = trainer.agreement.gather(guesses.by_row)
    found: Any = None
    if parts is not None:
        whole = {row: pair for part in parts for row, pair in part.items()}
        ordered = [whole[row] for row in sorted(whole)]
        try:
            found = hooks.metrics([guessed for guessed, _ in ordered], [there for _, there in ordered])
        except Exception as error:
            found = error
    found = trainer.agreement.told(found)
    if isinstance(found, Exception):
        raise found
    return dict(found)
