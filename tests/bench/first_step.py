"""How long a fresh start takes from the command to its first step, by phases, with one, two and more ranks.

LoRA on a tiny model in a folder, each start a run of its own, ended as soon as its first step is told. The phases are
those of the rank that came to its first step last.
"""

import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from job import tiny
from tests.bench import rank_phases
from tests.bench.interrupted import phases
from tests.bench.rank_folder import make_base
from tests.tiny_runs import TinyRuns

HIDDEN, LAYERS = 64, 2
PHASES = ("start and pull", "import", "load", "first step", "in all")


class Way(NamedTuple):
    strategy: str
    ranks: int

    def __str__(self) -> str:
        return f"{self.strategy}, {self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"


WAYS = (Way("single", 1), Way("ddp", 2), Way("zero2", 2), Way("ddp", 4))


@dataclass
class Starts:
    """Of one way; seconds by phase, of each start."""

    way: Way
    seconds: list[dict[str, float]] = field(default_factory=list)

    def of(self, phase: str) -> list[float]:
        return [start.get(phase, 0.0) for start in self.seconds]


def measured(ways: Sequence[Way], repeats: int) -> list[Starts]:
    found = [Starts(way) for way in ways]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_base(root / "base", HIDDEN, LAYERS)
        tiny.write_demo_chat(root / "chat.jsonl")
        watched = root / "phases"
        place = TinyRuns(str(root), root / "home", rank_phases.environment_for(watched))
        place.write_config("{r: 8, alpha: 16, dropout: 0.0}")
        for repeat in range(repeats):
            for starts in found:
                starts.seconds.append(
                    start(place, f"run-{repeat}-{starts.way.strategy}-{starts.way.ranks}", starts.way, watched)
                )
    return found


def start(place: TinyRuns, name: str, way: Way, watched: Path) -> dict[str, float]:
    fields = {"parallel__strategy": way.strategy, "parallel__nproc_per_node": way.ranks}
    began = time.time()
    job = place.job(name, train__max_steps=100_000, checkpoint__every="100000 steps", **fields)
    try:
        job.wait_for_step(1)
        return phases(began, time.time(), watched)
    finally:
        job.signal(signal.SIGKILL)
        job.ended()
