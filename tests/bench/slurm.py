"""What Slurm's interruptions cost a run: how soon its node is free, how soon it goes on, how many steps are done twice.

Run as `python -m tests.bench.slurm [--repeats N] [--only KIND]`. Brings up the tests' cluster and prints one Markdown
table. Slurm's own waiting stands apart: the tests' cluster looks around every two seconds, and lets a job that was
queued again wait for ten at least; a site's figures are others. The run is tiny, a commit every 50 steps.
"""

import argparse
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from job.tiny import make, write_demo_chat
from tests.bench.recovery import spread, table
from tests.slurm.cluster import Cluster
from tests.slurm.submitting import Batch, Desk
from tests.slurm.timeline import Timeline

PATIENCE_SECONDS = 240.0
STRIKE_STEP, EVERY_STEPS = 130, 50
CONFIG = """
run: {folder}/run
model: {{base: "{inputs}/base"}}
data: {{train: ["{inputs}/chat.jsonl"], max_length: 64}}
lora: {{r: 8}}
train: {{max_steps: 100000, global_batch_size: 8, learning_rate: 1e-3, logging_steps: 1}}
checkpoint: {{every: {every} steps}}
parallel: {{device: cpu}}
"""
PROGRAM = '#!/bin/sh\necho "bench: it begins" >&2\nexec {python} -m job "$@"\n'
STEP, RESUMED = r"step ([\d,]+)/[\d,]+  loss", r"resumed from step ([\d,]+) "


@dataclass
class Place:
    """A cluster, and inputs that all its nodes see."""

    cluster: Cluster
    inputs: Path


@dataclass
class Measured:
    """Seconds, one for each repeat."""

    out: list[float] = field(default_factory=list)  # from the signal to the supervisor's last line
    free: list[float] = field(default_factory=list)  # until no process is left
    waiting: list[float] = field(default_factory=list)  # from there to the next start: Slurm's own
    starting: list[float] = field(default_factory=list)  # from there to the first resumed step
    lost: list[float] = field(default_factory=list)  # steps


Strike = Callable[[Place, Batch, Timeline], float]


@dataclass(frozen=True)
class Kind:
    """`strike` returns when it is over for the job's life: a wall clock's time from which all is counted."""

    title: str
    strike: Strike
    options: tuple[str, ...] = ()
    controller: str = ""  # SlurmctldParameters
    again: bool = False  # somebody has to submit it once more


def until(what: Callable[[], object], promise: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s: {promise}")
        time.sleep(0.01)


def moment(timeline: Timeline, pattern: str, after: float = 0.0) -> float:
    """When the log first said it."""
    until(lambda: timeline.seen(pattern, after), f"{pattern!r} in\n{timeline.text()[-3000:]}")
    found = timeline.seen(pattern, after)
    assert found
    return found[0]


# ---- what happens to a job


def time_limit(place: Place, job: Batch, timeline: Timeline) -> float:
    return moment(timeline, ": stopping at the next step")


def preempted(place: Place, job: Batch, timeline: Timeline) -> float:
    """The signal comes when Slurm next looks at its queue; without any grace there is only its end."""
    urgent = job.cluster.folder / "urgent.sh"
    urgent.write_text("#!/bin/sh\nsleep 1\n", encoding="utf-8")
    began = time.time()
    options = [f"--nodelist={job.nodes()[0]}", "--partition=high", "--exclusive", "--output=/dev/null"]
    job.cluster.command("sbatch", *options, str(urgent))
    return moment(timeline, ": stopping at the next step|bench: it begins", began)


def killed(place: Place, job: Batch, timeline: Timeline) -> float:
    [node] = job.nodes()
    began = time.time()
    place.cluster.kill_node(node)
    return began


def cancelled(place: Place, job: Batch, timeline: Timeline) -> float:
    began = time.time()
    job.scancel()
    return began


KINDS = {
    "limit": Kind("time limit, USR1 before", time_limit, ("--time=2", "--signal=B:USR1@30")),
    "preempt": Kind("preemption, GraceTime 30 s, TERM", preempted),
    "preempt-signal": Kind(
        "preemption, GraceTime 30 s, `preempt_send_user_signal`", preempted, controller="preempt_send_user_signal"
    ),
    "abrupt": Kind(
        "preemption, GraceTime 0 (TERM, and KILL after KillWait, 5 s here)", preempted, ("--partition=abrupt",)
    ),
    "node": Kind("a node that dies (noticed after SlurmdTimeout, 10 s here)", killed),
    "cancel": Kind("scancel, and sbatch again", cancelled, again=True),
}


# ---- one interruption


def measure(place: Place, kind: Kind, number: int, into: Measured) -> None:
    folder = place.cluster.folder / "desks" / f"{time.monotonic_ns()}-{number}"
    folder.mkdir(parents=True)
    config, log = folder / "run.yaml", folder / "log"
    config.write_text(CONFIG.format(folder=folder, inputs=place.inputs, every=EVERY_STEPS), encoding="utf-8")
    desk = Desk(place.cluster, folder)
    submit = (f"--output={log}", *kind.options)
    with Timeline(log) as timeline:
        job = desk.sbatch([str(config)], *submit, SFT_JOB_GRACE="25")
        until(lambda: (found := timeline.last(STEP, time.time())) and count(found[1]) >= STRIKE_STEP, "steps are taken")
        began = kind.strike(place, job, timeline)
        mark = f"SLURM_JOB_ID={job.number}"
        until(lambda: not place.cluster.processes(mark) or timeline.seen("bench: it begins", began), "its node is free")
        free = time.time()
        if kind.again:
            until(lambda: job.state() == "CANCELLED", "the job has ended")
            free_of_it = time.time()
            job = desk.sbatch([str(config)], *submit)
        else:  # its next life is to last until it is measured
            place.cluster.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=30", check=False)
            free_of_it = free
        started = moment(timeline, "bench: it begins", began)
        resumed = moment(timeline, RESUMED, started)
        step = moment(timeline, STEP, resumed)
        job.scancel()
    before, at = timeline.last(STEP, started), timeline.seen(RESUMED, started)
    assert before and at
    if out := timeline.seen(r"^sft-job: stopped by", began):
        into.out.append(out[0] - began)
    into.free.append(free - began)
    into.waiting.append(started - free_of_it)
    into.starting.append(step - started)
    into.lost.append(count(before[1]) - count(at[1][1]))
    desk.clear()
    shutil.rmtree(folder, ignore_errors=True)


def count(text: str) -> int:
    return int(text.replace(",", ""))


def interruptions(place: Place, kinds: dict[str, Kind], repeats: int) -> None:
    rows = []
    for kind in kinds.values():
        found = Measured()
        place.cluster.reconfigure(SlurmctldParameters=kind.controller)
        for number in range(repeats):
            measure(place, kind, number, found)
        rows.append([
            kind.title,
            spread(found.out, digits=1) if found.out else "",
            spread(found.free, digits=1),
            spread(found.waiting, digits=1),
            spread(found.starting, digits=1),
            spread(found.lost, digits=0),
        ])  # fmt: skip
        print(f"{kind.title}: {found}", file=sys.stderr)
    table(
        f"Interruptions of a job on one node, median (worst) of {repeats}; seconds, but for the steps",
        ["", "signal to exit 75, committed", "signal to node free", "from there to the next start (Slurm's)",
         "start to first resumed step", "steps done twice"],
        rows,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    load = os.getloadavg()[0]
    with Cluster() as cluster:
        slurm = cluster.command("sinfo", "--version")
        print(f"{os.cpu_count()} cores, load {load:.1f}, {slurm}, Python {platform.python_version()}, {libraries}")
        program, inputs = cluster.folder / "bin" / "sft-job", cluster.folder / "inputs"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable), encoding="utf-8")
        program.chmod(0o755)
        make(inputs / "base")
        write_demo_chat(inputs / "chat.jsonl")
        kinds = {chosen.only: KINDS[chosen.only]} if chosen.only else KINDS
        interruptions(Place(cluster, inputs), kinds, chosen.repeats)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
