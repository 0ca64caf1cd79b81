"""Data that cannot teach are refused in one line; what else is to be known of them is said, one line each."""

import math
from collections.abc import Collection, Iterator
from dataclasses import replace

from job.errors import DataError
from job.training.batches import Schedule
from job.training.tally import CUT, LEFT_OUT, OVERLONG, Faults, Tally, length_keeping

MOST_LOST = 0.1  # of rows or of targets, with `overlong: drop`
KEPT = 0.99
SHOWN_KINDS = 3
FEW_STEPS = 50


def check(faults: Faults, tallies: dict[str, Tally], max_length: int, overlong: str) -> None:
    """`tallies`: by the field that names the data. Raises DataError."""
    if faults.rows:
        raise DataError("; ".join(faults.shown) + _more(faults))
    for name, tally in tallies.items():
        if overlong == "drop":
            _check_lost(name, tally, max_length)
        if not tally.rows:
            raise DataError(f"{name}: no row to use: {_nothing_left(tally, max_length)}")
    if any(tally.must_end for tally in tallies.values()) and not any(tally.ends for tally in tallies.values()):
        raise DataError(
            "no end-of-turn token is ever a target, so the model cannot learn to stop: set data.append_eos: true, "
            "a model.chat_template that closes a turn with a special token, model.add_tokens with what the template "
            "closes a turn with, or a higher data.max_length"
        )


def _nothing_left(tally: Tally, max_length: int) -> str:
    if not tally.seen:
        return "the data are empty"
    if tally.dropped[LEFT_OUT] == tally.seen:
        return f"hooks row() left out all {tally.seen} rows"
    return "; ".join(_left_out(tally, max_length))


def _more(faults: Faults) -> str:
    """How many bad rows are not shown, and what is wrong with all of them."""
    if not (hidden := faults.rows - len(faults.shown)):
        return ""
    kinds = [f"{rows} x {kind}" for kind, rows in faults.kinds.most_common(SHOWN_KINDS)]
    others = ", ..." if len(faults.kinds) > SHOWN_KINDS else ""
    return f"; and {hidden} more bad rows (of all {faults.rows}: {', '.join(kinds)}{others})"


def _check_lost(name: str, tally: Tally, max_length: int) -> None:
    dropped = tally.dropped[OVERLONG]
    seen = tally.seen - tally.dropped[LEFT_OUT]
    rows, targets = dropped / max(seen, 1), tally.dropped_targets / max(tally.targets, 1)
    if max(rows, targets) <= MOST_LOST:
        return
    enough = max(length_keeping(tally.lengths, KEPT), length_keeping(tally.targets_of, KEPT))
    raise DataError(
        f"{name}: {dropped} of {seen} rows ({rows:.0%}), with {targets:.0%} of the tokens to train, are longer "
        f"than data.max_length {max_length} and would be left out: set data.max_length to {enough}, which keeps "
        f"{KEPT:.0%} of both, or data.overlong to truncate or split"
    )


def said(tallies: dict[str, Tally], max_length: int) -> list[str]:
    """What happened to how many rows, training and evaluation together."""
    whole = Tally()
    for tally in tallies.values():
        whole.merge(tally)
    lines = [*_left_out(whole, max_length), *_shortened(whole, max_length)]
    if whole.unasked:
        lines.append(
            f"{whole.unasked} of {whole.seen} rows have an empty prompt: the model learns to say their answers to "
            "nothing; fill the prompts, or leave these rows out"
        )
    if whole.unanswered:
        lines.append(
            f"{whole.unanswered} of {whole.seen} rows end with a turn that is not the assistant's: it is not trained, "
            "nor is the end behind it; have it answered, or leave it out"
        )
    if whole.shared:
        lines.append(
            f"in {whole.shared} of {whole.seen} rows prompt and answer share a token, which is not trained: "
            "let the answer, not the prompt, hold the space between them"
        )
    if whole.odd:
        lines.append(
            f"{whole.odd} of {whole.seen} rows hold U+FFFD or NUL, which stand where text was lost in decoding: "
            "look whether the file was read in the right encoding when it was made"
        )
    return lines


def unmet(texts: Collection[str]) -> list[str]:
    """Warnings of tokens that the config adds and no row holds."""
    return [f"model.add_tokens: {text!r} is in no training row: it will not be trained" for text in texts]


def _left_out(tally: Tally, max_length: int) -> Iterator[str]:
    length = _too_long(max_length)
    if rows := tally.dropped[LEFT_OUT]:
        yield f"{rows} of {tally.seen} rows left out by hooks"
    if rows := tally.dropped[OVERLONG]:
        yield f"{rows} of {tally.seen} rows left out: {length} (data.overlong: drop)"
    if rows := tally.dropped[CUT]:
        yield f"{rows} of {tally.seen} rows left out: {length}, and nothing to train in what cutting leaves"


def _shortened(tally: Tally, max_length: int) -> Iterator[str]:
    length = _too_long(max_length)
    if tally.truncated:
        yield f"{tally.truncated} of {tally.seen} rows cut: {length} (data.overlong: truncate)"
    if tally.split:
        yield f"{tally.split} of {tally.seen} rows split into {tally.parts}: {length} (data.overlong: split)"
    if tally.inside:
        yield f"{tally.inside} rows begin in the middle of an answer, without its question; raise data.max_length"
    if tally.unopened:
        yield (
            f"{tally.unopened} rows lack the beginning of their question, which did not fit ahead of the answer; "
            "raise data.max_length"
        )
    if tally.lost:
        yield (
            f"{tally.lost} of {tally.targets} tokens to train left out: white space or special tokens that splitting "
            "left by themselves; raise data.max_length"
        )


def _too_long(max_length: int) -> str:
    return f"longer than data.max_length {max_length} tokens"


def few_steps(schedule: Schedule) -> str | None:
    """A warning where the run is so short that it hardly learns anything, and what would make it longer."""
    if schedule.steps >= FEW_STEPS:
        return None
    begun = f"{schedule.steps} optimizer steps in all, fewer than {FEW_STEPS}, teach little"
    if schedule.max_steps:
        return f"{begun}: unless this is a trial, raise train.max_steps"
    epochs = math.ceil(FEW_STEPS / schedule.steps_per_epoch)
    ways = [f"train.epochs: {epochs}"]
    for size in range(min(schedule.global_batch_size, schedule.epoch_rows) - 1, 0, -1):
        if (smaller := replace(schedule, global_batch_size=size)).steps >= FEW_STEPS:
            ways.insert(0, f"train.global_batch_size: {size} ({smaller.steps} steps)")
            break
    return f"{begun}: set {' or '.join(ways)}"
