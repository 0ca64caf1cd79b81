"""`sft-job fork`: a new run folder goes on from a commit, with its optimizer and position, under a changed config.

Read and checked first: a mistake leaves the new folder as it was. Nobody runs a fork that is not whole.
"""

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from job import __version__
from job.advice import instead_of_fork, result_of
from job.config import RunConfig, trajectory, trajectory_diff, trajectory_digest
from job.config.changes import needs_new_start, needs_other_rows, reorders_rows
from job.config.trajectory import changed
from job.errors import ConfigError
from job.host.grace import grace_seconds
from job.host.preemption import Stop
from job.inputs import prepare_anew
from job.report.report import Report
from job.report.wording import spoken_bytes
from job.rundir import RunDir
from job.settled import as_settled, load, read_run
from job.storage.checkpoints import download_files
from job.storage.grafting import Taken, begun_fork, declare, fork_record, graft, take_newest
from job.storage.records import RUN, Origin, PreparedRecord, RunRecord
from job.storage.store import NotFound, ObjectStore, is_local, open_store
from job.workspace import workspace

AT_STEP = re.compile(r"(.+)@(\d+)")


@dataclass(frozen=True)
class Forking:
    """What is forked: the run, its record, the changed config, and which of its deciding fields changed."""

    source: ObjectStore
    record: RunRecord
    config: RunConfig
    paths: list[str]

    @property
    def other_rows(self) -> list[str]:
        return needs_other_rows(self.paths, self.config, RunConfig.from_dict(self.record.config))


def fork(run: str, to: str, sets: tuple[str, ...], console: Console) -> None:
    """Make `to` a run that goes on from RUN (a RUN.yaml or a run folder; `RUN@step`: from that step's commit).

    Prints the command that runs it on stdout. Raises: ConfigError where the change does not go with the run's tensors,
    the step has no commit, or `to` holds something else; DataError where no commit is whole; StorageError; Stopped.
    """
    named = AT_STEP.fullmatch(run)
    place, step = (named[1], int(named[2])) if named else (run, None)
    forking = read(place, to, sets)
    stop = Stop(grace_seconds(forking.config, os.environ)).listen()
    report = Report(forking.config, console)
    target = open_store(to, forking.config.storage, stopped=stop.requested)
    with workspace() as local:
        try:
            copy(forking, target, step, local, stop, report)
        finally:
            report.close("stopped" if stop.requested() else "done")
    click.echo(f"sft-job run {shlex.quote(to)}")


def read(place: str, to: str, sets: tuple[str, ...]) -> Forking:
    """Raises: ConfigError with the fields that may not change, or where `to` is no place for a fork of this run."""
    if not to.strip():
        raise ConfigError("--to is empty; name the new run folder, like --to s3://bucket/prefix")
    if any(setting.partition("=")[0].strip() == "run" for setting in sets):
        raise ConfigError("--set run=... says nothing here: the new run folder is named by --to")
    config = _load(place, sets)
    source = open_store(config.run, config.storage)
    try:
        ours, new = config.replace({"run": to}), open_store(to, config.storage).uri
    except ConfigError as error:
        raise ConfigError(f"--to: {str(error).removeprefix('config: run: ')}") from error
    refuse_nesting(source.uri, new)
    record = read_run(source)
    if record is None:
        raise ConfigError(f"{source.uri} is no run yet: it has no {RUN}; run it first")
    config = as_settled(ours, record)
    paths = changed(config, record.trajectory)
    if fixed := needs_new_start(paths):
        lines = [line for line in trajectory_diff(config, record.trajectory) if line.partition(":")[0] in fixed]
        raise ConfigError(
            f"{'; '.join(lines)}: a fork keeps the trained tensors and the optimizer's state, which would not fit; "
            f"{instead_of_fork(config, record, source.uri, to, result_of(source.uri, config.storage))}"
        )
    return Forking(source, record, config, paths)


def _load(place: str, sets: tuple[str, ...]) -> RunConfig:
    try:
        return load(place, sets)
    except ConfigError as error:
        run, at, step = place.rpartition("@")
        if not at or "/" in step:
            raise
        raise ConfigError(f"{error}; a step to fork from is a number, like {run}@100, not {step!r}") from error


def refuse_nesting(run: str, new: str) -> None:
    """A run folder in another: to prune, copy or delete the one would be to harm the other. Raises: ConfigError."""
    ours, theirs = (Path(uri).resolve().as_posix() if is_local(uri) else uri for uri in (run, new))
    if theirs.startswith(f"{ours.rstrip('/')}/"):
        raise ConfigError(f"--to {new} lies inside the run that is forked, {run}; name a folder beside it")
    if ours.startswith(f"{theirs.rstrip('/')}/"):
        raise ConfigError(f"--to {new} holds the run that is forked, {run}; name a folder beside it")


def copy(forking: Forking, target: ObjectStore, step: int | None, local: RunDir, stop: Stop, report: Report) -> None:
    source, record, config = forking.source, forking.record, forking.config
    begun = begun_fork(target)
    only = begun.origin.commit if begun is not None and step is None else None
    commits = [take_newest(source, step, only, local.resume, report.message)]
    taken = commits[0]
    tokenizer_source = bring_rows(forking, local, stop, report)
    summary = json.loads((local.prepared / "summary.json").read_text(encoding="utf-8"))
    best = config.best.step_of(taken.commit.evaluations)
    if config.best.final == "best" and best not in (None, taken.commit.step) and not forking.other_rows:
        commits.insert(0, take_best(source, best, local, report))
    origin = Origin(run=source.uri, commit=taken.key, digest=taken.digest)
    fork = declare(target, fork_record(origin, config.to_dict(), summary["fingerprint"], __version__), begun)
    new = record.model_copy(
        update={
            "config": fork.config,
            "trajectory": trajectory(config),
            "digest": trajectory_digest(config),
            "prepared": fork.prepared,
            "tokenizer_source": tokenizer_source,
            "version": fork.version,
            "origin": fork.origin,
        }
    )
    if finished(target, new):
        report.message(f"{target.uri} is this fork already")
        return
    key = graft(target, fork, new, local.prepared, commits, keep=not forking.other_rows)
    for line in told(forking, taken, summary.get("epoch_rows") or summary["rows"]):
        report.message(line)
    report.message(f"{target.uri} goes on from {key}")


def finished(target: ObjectStore, record: RunRecord) -> bool:
    try:
        there = RunRecord.parse(target.get(RUN), f"{target.uri}/{RUN}")
    except NotFound:
        return False
    if there.origin != record.origin or there.digest != record.digest:
        raise ConfigError(f"{target.uri} is another run; fork to another folder")
    return True


def bring_rows(forking: Forking, local: RunDir, stop: Stop, report: Report) -> str:
    """The run's own prepared rows, or new ones where a field that decides them changed; returns the tokenizer's source.

    Raises: DataError when they are damaged, or the new data are wrong.
    """
    source, record = forking.source, forking.record
    if not forking.other_rows:
        key = f"prepared/{record.prepared}.json"
        prepared = PreparedRecord.parse(source.get(key), f"{source.uri}/{key}")
        download_files(source, prepared.folder, prepared.files, local.prepared)
        return record.tokenizer_source
    config = forking.config
    if "model.tokenizer" not in forking.paths:  # as this run pinned it
        config = config.replace({"model.tokenizer": record.tokenizer_source})
    return prepare_anew(config, record.base_source, local, stop, report)


def take_best(source: ObjectStore, step: int | None, local: RunDir, report: Report) -> Taken:
    try:
        return take_newest(source, step, None, local.best, report.message)
    except ConfigError:
        raise ConfigError(
            f"best.final: best needs the commit of the best evaluation, step {step}, which {source.uri} keeps no more; "
            "set best.final=last"
        ) from None


def told(forking: Forking, taken: Taken, rows: int) -> list[str]:
    """What goes on, what changed, and what that means for the rows to come."""
    step, config = taken.commit.step, forking.config
    size = spoken_bytes(sum(file.size for file in taken.commit.files))
    lines = [
        f"forked {forking.source.uri} at step {step} ({taken.key}, {size}, verified): "
        "the trained tensors, the optimizer's state and the position are kept"
    ]
    differences = trajectory_diff(config, forking.record.trajectory)
    lines += [f"  {line}" for line in differences] or ["  nothing that decides what is learned was changed"]
    steps = config.train.steps(rows)
    if forking.other_rows:
        lines.append(
            f"the rows were prepared anew: step {step + 1} is the next of their schedule of {steps} steps; "
            "evaluations so far were of other rows and are left out"
        )
    elif reorders_rows(forking.paths):
        lines.append(
            f"from step {step + 1} of {steps} on the order is another: rows of this epoch may come twice or never"
        )
    if steps <= step:
        lines.append(
            f"its {steps} steps are over at step {step}: it only makes the result; "
            "raise train.epochs or train.max_steps in a fork to train on"
        )
    return lines
