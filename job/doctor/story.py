"""Can a run start here? This machine is probed, a store as a run would use it, the GPUs by a program; a line for each.

Lines for people go to stderr; to stdout goes the policy a store needs, or with --json everything as one object.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console

from job.config import ParallelConfig, load_config
from job.doctor.machine import of_machine
from job.doctor.ranks import of_ranks
from job.doctor.said import Lines, cannot_start, report
from job.doctor.store import StoreExamination
from job.errors import ConfigError
from job.host.preemption import Stop
from job.report.progress import stderr_console
from job.report.wording import counted
from job.storage.finding import Finding, Status, cannot_run
from job.storage.store import NO_OPTIONS, BucketOptions


@dataclass(frozen=True)
class Place:
    """Where and how the run would be, as far as it is named."""

    uri: str | None = None
    buckets: Mapping[str, BucketOptions] = field(default_factory=lambda: NO_OPTIONS)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)


def doctor(where: str | None, as_json: bool = False, gpu: bool = False, device: str | None = None) -> None:
    """Probe this machine; the store at `where`: a URI, a path, or a RUN.yaml, whose run folder, storage options and
    `parallel` are then used; with `gpu` its GPUs, or with `device` "cpu" the same program on the CPU.

    Raises: ConfigError where `where` is no store or the launcher's variables contradict each other; HardwareError or
    StorageError where no run can start, naming the first probe that failed; Stopped on a signal. Returns where a run
    can start, perhaps with warnings. Call from the main thread.
    """
    stop = Stop(0.0).listen()
    place = _place(where)
    parallel = place.parallel if device is None else place.parallel.model_copy(update={"device": device})
    store = None if place.uri is None else StoreExamination(place.uri, place.buckets, stop.requested)
    console = stderr_console()
    say = Lines(Console(quiet=True) if as_json else console)

    say.heading("this machine")
    machine = _told(say, of_machine(parallel, os.environ, stop.requested))
    error = cannot_start(machine)
    ranks: list[Finding] = []
    if gpu:
        say.heading("its GPUs" if device != "cpu" else "ranks on its CPU")
        ranks = _told(say, of_ranks(parallel, os.environ, stop))
        error = error or cannot_start(ranks)
    found: list[Finding] = []
    if store is not None:
        say.heading(f"probing {store.uri}")
        found = _told(say, store.findings())
        if store.left:
            say.left(f"{store.uri}/{store.folder}", len(store.left))
        error = error or cannot_run(found, store.uri)
    if as_json:
        click.echo(json.dumps(report(machine, ranks, found, store, error), ensure_ascii=False))
    elif store is not None and store.policy is not None:
        say.plain("\nTo stdout goes the least that a policy has to allow:")
        click.echo(json.dumps(store.policy, indent=2))
    if error is not None:
        raise error
    _well(say, store, [*machine, *ranks, *found])


def _told(say: Lines, findings: Iterator[Finding]) -> list[Finding]:
    """Each is said as soon as it is known; why the first one is missing stands in the last line of all."""
    past: list[Finding] = []
    for finding in findings:
        first = finding.status == Status.MISSING and not any(one.status == Status.MISSING for one in past)
        past.append(finding)
        say.finding(finding, cause_is_last=first)
    return past


def _well(say: Lines, store: StoreExamination | None, findings: list[Finding]) -> None:
    warnings = sum(finding.status == Status.WARNING for finding in findings)
    place = "a run can start here" if store is None else f"a run can live in {store.uri}"
    say.verdict(place + (f", with {counted(warnings, 'warning')}" if warnings else ""), bool(warnings))


def _place(where: str | None) -> Place:
    if not where:
        return Place()
    if Path(where).suffix in (".yaml", ".yml") and "://" not in where:
        config = load_config(Path(where))
        return Place(config.run, config.storage, config.parallel)
    if "://" not in where and Path(where).expanduser().is_file():
        raise ConfigError(f"{where} is a file, but neither a folder nor a RUN.yaml: this is no store")
    return Place(where)
