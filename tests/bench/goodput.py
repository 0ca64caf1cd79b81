"""Goodput under interruptions, by simulation: seconds of steps that count, over all seconds that pass.

Assumptions. Every node is interrupted at exponentially distributed times, and any one of them interrupts the whole job;
a share of interruptions is announced (TERM with a grace period), the others kill. After each the job starts again at
once: waiting in a queue is left out, it is the same for all. Start to first step costs the same with every tool, which
favours the others (they have to read what they saved, too). What is interrupted before its first step gains nothing.

sft-job: the interval is its own formula's; the loop blocks for the copy; a snapshot counts once its upload is through,
beside the training; an announced end loses no step and costs the time from TERM to exit, where that fits the grace.
Periodic save: transformers' Trainer blocks for the whole save, and an announced end is like a kill; every N steps, or
at the interval that is best for it. Save at TERM (`enable_jit_checkpoint`): saves once, when the end is announced and
the save fits the grace; a kill loses all since the last such save. That ranks may save at different steps, and that a
half-written checkpoint may be picked up, is left out: both favour them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from job.storage.interval import checkpoint_interval, young_daly

INTERRUPTIONS = 20_000  # simulated for each figure
SEED = 7


@dataclass(frozen=True)
class Figures:
    """Seconds, as measured; of one job whose state takes as long to save on one node as on many."""

    step: float = 1.0
    start: float = 20.0  # from the command to the first resumed step
    blocking: float = 0.2
    upload: float = 10.0  # until the commit stands, writing included
    leave: float = 5.0  # from TERM to exit 75
    save: float = 8.0  # Trainer._save_checkpoint
    grace: float = 30.0
    announced: float = 0.8  # of all interruptions


Kept = Callable[[float, bool], tuple[float, float]]
"""(seconds of training until the interruption, announced) -> (of them kept, seconds spent after it)."""


def ours(at: Figures, between_seconds: float) -> Kept:
    interval = checkpoint_interval(at.blocking, at.upload, between_seconds)
    period = interval + at.blocking

    def kept(trained: float, announced: bool) -> tuple[float, float]:
        if announced and at.leave <= at.grace:
            return max(0.0, trained - trained // period * at.blocking), at.leave
        return max(0.0, (trained - at.upload) // period * interval), 0.0

    return kept


def periodic(at: Figures, interval_seconds: float) -> Kept:
    def kept(trained: float, announced: bool) -> tuple[float, float]:
        return trained // (interval_seconds + at.save) * interval_seconds, 0.0

    return kept


def at_term(at: Figures) -> Kept:
    def kept(trained: float, announced: bool) -> tuple[float, float]:
        return (trained, at.save) if announced and at.save <= at.grace else (0.0, 0.0)

    return kept


def goodput(at: Figures, between_seconds: float, kept: Kept, interruptions: int = INTERRUPTIONS) -> float:
    """In [0, 1]. `between_seconds`: mean time between two interruptions of the job."""
    chance = random.Random(SEED)
    useful = wall = 0.0
    for _ in range(interruptions):
        up, announced = chance.expovariate(1 / between_seconds), chance.random() < at.announced
        wall += up
        if up > at.start:
            seconds, after = kept(up - at.start, announced)
            useful, wall = useful + seconds, wall + after
    return useful / wall


def goodputs(at: Figures, between_seconds: float) -> dict[str, float]:
    """By tool, for a job that is interrupted every so many seconds."""
    own = max(at.step, young_daly(at.save, between_seconds))
    return {
        "sft-job": goodput(at, between_seconds, ours(at, between_seconds)),
        "save every 500 steps": goodput(at, between_seconds, periodic(at, 500 * at.step)),
        "save at its best interval": goodput(at, between_seconds, periodic(at, own)),
        "save at TERM only": goodput(at, between_seconds, at_term(at)),
    }
