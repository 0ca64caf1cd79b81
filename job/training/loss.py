"""The loss of a micro-batch: cross entropy summed over its trained tokens.

Divided by the trained tokens of the whole global batch and summed over micro-batches and ranks it is the loss of the
step, whatever the layout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

Row = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]  # token ids and labels (-100: masked), both [tokens]
MASKED = -100


@dataclass(frozen=True)
class MicroBatch:
    """Tensors of one forward pass: [1, tokens] padding-free, or [rows, longest] where attention needs padding."""

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor  # the token each position must predict, same shape as input_ids; -100: none
    kept: torch.Tensor | None  # of a single row: the positions that predict a trained token, at least one


def masked_row(row: Row) -> Row:
    """A row to take part with when a rank has none: same tokens, nothing trained."""
    ids, labels = row
    return ids[:2], np.full_like(labels[:2], MASKED)


def micro_batch(rows: Sequence[Row], padded: bool, device: torch.device) -> MicroBatch:
    """Lay rows end to end with restarting position ids, or pad them on the right."""
    shifted = [np.append(labels[1:], np.int32(MASKED)) for _, labels in rows]
    if not padded:
        whole = np.concatenate(shifted)
        return MicroBatch(
            {
                "input_ids": _tensor(np.concatenate([ids for ids, _ in rows])[None, :], device),
                "position_ids": _tensor(np.concatenate([np.arange(len(ids)) for ids, _ in rows])[None, :], device),
            },
            _tensor(whole[None, :], device),
            _tensor(_kept(whole), device),
        )
    longest = max(len(ids) for ids, _ in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    mask = np.zeros((len(rows), longest), np.int64)
    targets = np.full((len(rows), longest), MASKED, np.int64)
    for at, (tokens, _) in enumerate(rows):
        ids[at, : len(tokens)] = tokens
        mask[at, : len(tokens)] = 1
        targets[at, : len(tokens)] = shifted[at]
    return MicroBatch(
        {"input_ids": _tensor(ids, device), "attention_mask": _tensor(mask, device)},
        _tensor(targets, device),
        _tensor(_kept(targets[0]), device) if len(rows) == 1 else None,
    )


def _kept(targets: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Found out here, where the numbers are: on the GPU it would wait for the device at each micro-batch."""
    found = np.flatnonzero(targets != MASKED)
    return found if len(found) else np.zeros(1, np.int64)


def _tensor(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device, non_blocking=True)


def summed_loss(model: Any, batch: MicroBatch, skip_untrained: bool) -> torch.Tensor:
    """Sum of the cross entropies of all trained tokens, fp32 scalar with its graph (zero where nothing is trained).

    `skip_untrained`: the model takes `logits_to_keep`, so a single row's logits are computed only where a token is
    trained; with a vocabulary of 256,000 they are most of the memory.
    """
    return _summed(*_logits(model, batch, skip_untrained))


def loss_and_guesses(
    model: Any, batch: MicroBatch, skip_untrained: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(summed loss, likeliest tokens, tokens that stand there): both of shape [trained tokens], row after row."""
    logits, targets = _logits(model, batch, skip_untrained)
    trained = targets != MASKED
    return _summed(logits, targets), logits.argmax(-1)[trained], targets[trained]


def _logits(model: Any, batch: MicroBatch, skip_untrained: bool) -> tuple[torch.Tensor, torch.Tensor]:
    targets = batch.targets
    inputs = dict(batch.inputs)
    if skip_untrained and batch.kept is not None:
        inputs["logits_to_keep"] = batch.kept
        targets = targets[:, batch.kept]
    return model(**inputs, use_cache=False).logits, targets


def _summed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), targets.reshape(-1), ignore_index=MASKED, reduction="sum"
    )
