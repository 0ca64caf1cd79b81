"""The worst real micro-batch, tried before the first step: what does not fit ends the attempt at once, not at step N.

Forward, backward, an optimizer step and a snapshot, of the rows that fill the token budget best with their tokens and
with their targets (the logits of these are most of the memory where the vocabulary is large). The loss counts nothing
and the learning rate is zero, so no number of the run changes; the optimizer's state is forgotten afterwards.
"""

import resource
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch

from job.training.dataset import PreparedRows
from job.training.loss import micro_batch, summed_loss

if TYPE_CHECKING:
    from job.training.trainer import Trainer


def due(device: torch.device) -> bool:
    """On a GPU, and on a CPU where memory has a limit: without one nothing is to be learned."""
    return device.type == "cuda" or resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def worst(rows: PreparedRows, token_budget: int, padded: bool) -> list[list[int]]:
    """Row numbers of the micro-batch with the most tokens, and of that with the most targets, within the budget."""
    orders = (np.lexsort((rows.trained, rows.lengths)), np.lexsort((rows.lengths, rows.trained)))
    found = [list(_filled(order[::-1].tolist(), rows, token_budget, padded)) for order in orders]
    return found[:1] if sorted(found[0]) == sorted(found[1]) else found


def _filled(order: Iterable[int], rows: PreparedRows, token_budget: int, padded: bool) -> Iterator[int]:
    """The first, and all after it that still fit; `padded`: each then costs as much as the longest."""
    shortest, longest, taken, tokens = int(rows.lengths.min()), 0, 0, 0
    for row in order:
        length = int(rows.lengths[row])
        widest = max(longest, length)
        cost = (taken + 1) * widest if padded else tokens + length
        if taken == 0 or cost <= token_budget:
            longest, taken, tokens = widest, taken + 1, tokens + length
            yield row
        if tokens + shortest > token_budget:
            return


def try_worst(trainer: "Trainer") -> int | None:
    """Returns the peak of GPU memory in bytes, of the fullest rank, on rank 0; None on a CPU. All ranks together.

    Raises: what running out of memory raises.
    """
    at = trainer.layout
    groups = trainer.base_optimizer.param_groups
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = 0.0
    if at.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(at.device)
    trainer.model_wrapped.train()
    tried = worst(trainer.rows, at.token_budget, at.padded)
    for number, rows in enumerate(tried, 1):
        batch = micro_batch([trainer.rows.row(row) for row in rows], at.padded, at.device)
        last = number == len(tried)  # its gradients are summed over the ranks, which takes memory too
        with nullcontext() if last else trainer.gradients_apart(), trainer.compute_loss_context_manager():
            loss = summed_loss(trainer.model_wrapped, batch, trainer.skips_untrained)
            trainer.backward(0.0 * loss, last)
    trainer.held.step_of_trial()
    trainer.conductor.rehearse()
    trainer.held.forget_trial()
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    if at.device.type != "cuda":
        return None
    peaks = trainer.agreement.gather(torch.cuda.max_memory_allocated(at.device))
    return max(peaks) if peaks else None
