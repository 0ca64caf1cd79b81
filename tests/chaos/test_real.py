"""Real processes as a user starts them, killed and stopped in every phase: the same end as the run left alone.

What the warm interpreter cannot show: a start by exec, imports, an interpreter that goes down, its own hash seed.
"""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from job.errors import ExitCode
from tests.chaos.experiment import LAYOUTS, STEPS, Laboratory
from tests.chaos.judge import Launch, finished, judge_commits, judge_end, judge_events, newest_step, tensors
from tests.harness import Job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the whole of a series

SEED = int(os.environ.get("SFT_CHAOS_SEED", "20261"))
KILL, TERM, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.005


@dataclass(frozen=True)
class Seen:
    """A real run as it looks from outside."""

    job: Job
    folder: Path  # of the run
    local: Path  # SFT_JOB_HOME

    def has(self, pattern: str) -> bool:
        """Whether a file of the run folder has such a name."""
        return next(self.folder.glob(pattern), None) is not None

    def local_has(self, pattern: str) -> bool:
        return next(self.local.glob(f"runs/*/{pattern}"), None) is not None

    def events(self) -> str:
        return "".join(file.read_text(encoding="utf-8") for file in self.local.glob("runs/*/events.jsonl"))


@dataclass(frozen=True)
class Moment:
    """`fresh`: without the prepared rows and the run.json of the run left alone."""

    name: str
    reached: Callable[[Seen], object]
    number: signal.Signals = KILL
    rank: bool = False
    fresh: bool = False
    layout: str = "one"


def after(seconds: float) -> Callable[[Seen], object]:
    begun: list[float] = []

    def reached(seen: Seen) -> bool:
        begun.append(time.monotonic())
        return time.monotonic() - begun[0] >= seconds

    return reached


MOMENTS = (
    Moment("local folder", lambda seen: seen.local_has("lock"), fresh=True),
    Moment("preparing", lambda seen: seen.local_has(".prepared.*"), fresh=True),
    Moment("preparing, TERM", lambda seen: seen.local_has(".prepared.*"), TERM, fresh=True),
    Moment("claimed", lambda seen: seen.has("attempts/0001.json"), fresh=True),
    Moment("imports", lambda seen: seen.local_has("stacks-0.txt"), TERM),
    Moment("prepared rows go up", lambda seen: seen.has("prepared/*/0001/*"), fresh=True),
    Moment("run.json", lambda seen: seen.has("run.json"), fresh=True),
    Moment("first step", lambda seen: '"step": 1,' in seen.events()),
    Moment("step, USR1", lambda seen: '"step": 4,' in seen.events(), USR1),
    Moment("evaluation, rank", lambda seen: '"step": 5,' in seen.events(), rank=True),
    Moment("mid-snapshot", lambda seen: seen.local_has("snapshots/.step-*")),
    Moment("mid-snapshot, rank", lambda seen: seen.local_has("snapshots/.step-*"), rank=True),
    Moment("mid-upload", lambda seen: seen.has("checkpoints/*/step-*/optimizer.safetensors")),
    Moment("mid-upload, TERM", lambda seen: seen.has("checkpoints/*/step-*/optimizer.safetensors"), TERM),
    Moment("committed", lambda seen: seen.has("commits/*-00000003.json")),
    Moment("pruned", lambda seen: seen.has("commits/*") and not seen.has("commits/*-00000003.json")),
    Moment("result goes up", lambda seen: seen.has("final/0001/*")),
    Moment("result.json", lambda seen: seen.has("final/result.json")),
    Moment("one rank of two", lambda seen: '"step": 4,' in seen.events(), rank=True, layout="two"),
)


def at_random() -> list[Moment]:
    draw = random.Random(SEED)
    return [
        Moment(f"random-{number}", after(draw.uniform(0.5, 8.0)), draw.choice((KILL, KILL, TERM)))
        for number in range(2)
    ]


def test_real_processes_killed_and_stopped_in_every_phase(laboratory: Laboratory) -> None:
    moments = [*MOMENTS, *at_random()]
    for layout in {moment.layout for moment in moments}:
        laboratory.left_alone(layout)
    with ThreadPoolExecutor(3) as pool:
        failures = [failure for failure in pool.map(lambda moment: conduct(laboratory, moment), moments) if failure]
    assert not failures, f"seed {SEED}\n\n" + "\n\n".join(failures)


def conduct(laboratory: Laboratory, moment: Moment) -> str | None:
    try:
        interrupted(laboratory, moment)
    except Exception as error:
        return f"{moment.name}: {type(error).__name__}: {error}"
    return None


def interrupted(laboratory: Laboratory, moment: Moment) -> None:
    name = "real-" + re.sub(r"\W+", "-", moment.name)
    folder, home, store = laboratory.folder / "runs" / name, laboratory.folder / name / "home", laboratory.store(name)
    arguments = laboratory.arguments(name, LAYOUTS[moment.layout])
    if not moment.fresh:
        begun = laboratory.folder / "runs" / f"alone-{moment.layout}"
        shutil.copytree(begun / "prepared", folder / "prepared")
        shutil.copy(begun / "run.json", folder / "run.json")
    job = Job(arguments, home)
    happened = send_at(moment, Seen(job, folder, home))
    code = job.ended()
    killed = happened and not moment.rank and moment.number == KILL and code != 0
    judge_end(code, killed, store, home)
    allowed = (ExitCode.DONE, ExitCode.CRASHED) if moment.rank else (ExitCode.DONE, ExitCode.STOPPED)
    assert killed or code in allowed, f"exit {code}\n{job.said()}"
    if code == ExitCode.STOPPED and (steps := re.findall(r"step (\d+)/\d+  loss", job.said())):
        assert newest_step(store) == int(steps[-1]), job.said()
    told = launched(job.said())
    if killed or code != ExitCode.DONE:
        before = newest_step(store)
        last = Job(arguments, home)
        assert last.ended() == ExitCode.DONE, last.said()
        judge_end(0, False, store, home)
        if resumed := launched(last.said()):
            assert resumed[0].resume == before, last.said()
        told += launched(last.said())
    assert finished(store) is not None
    judge_commits(store)
    judge_events(store, told, STEPS, whole=not killed)
    alone = laboratory.left_alone(moment.layout).tensors
    assert tensors(store, laboratory.folder / name / "final") == alone, "the result is not bit-identical"


def send_at(moment: Moment, seen: Seen) -> bool:
    """Whether the moment came before the end of the run."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not moment.reached(seen):
        assert time.monotonic() < deadline, f"{moment.name} never came:\n{seen.job.said()}"
        if seen.job.process.poll() is not None:
            return False
        time.sleep(POLL_SECONDS)
    pids = seen.job.ranks()[-1:] if moment.rank else [seen.job.process.pid]
    for pid in pids:
        os.kill(pid, moment.number)
    return bool(pids)


def launched(log: str) -> list[Launch]:
    """As the log tells of them."""
    found, attempt = [], 0
    for line in log.splitlines():
        if match := re.match(r"attempt (\d+): ", line):
            attempt = int(match[1])
        if match := re.match(r"training \d+ steps from step (\d+)", line):
            found.append(Launch(attempt, int(match[1])))
    return found
