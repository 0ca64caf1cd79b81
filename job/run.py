"""The story of a node: pull, claim, and one attempt to finish.

A run is a folder in object storage; everything else may vanish at any instant. The same command on any machine that
reaches the folder either finishes the run or leaves it further along.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

from rich.console import Console

from job import __version__
from job.attempt import Attempt
from job.budgets import budget
from job.config import RunConfig
from job.errors import HardwareError, Stopped
from job.host.crew import Crew, crew
from job.host.grace import grace_seconds
from job.host.notices import watch
from job.host.preemption import Stop
from job.host.topology import Topology, topology
from job.inputs import gather, pull_everything
from job.leaving import lasting, refuse_to_begin
from job.report.report import Report
from job.report.trackers import check_trackers
from job.report.wording import spoken_seconds
from job.rundir import RunDir
from job.settled import read_result, read_run, refuse_another_run, settle
from job.storage.attempts import claim, ensure_idle
from job.storage.history import history, refuse_futile
from job.storage.records import RunRecord
from job.storage.store import ObjectStore, open_store
from job.workspace import workspace

Opener = Callable[[RunConfig, Callable[[], bool]], ObjectStore]


def run_store(config: RunConfig, stopped: Callable[[], bool]) -> ObjectStore:
    """The run folder as its config names it; waits and transfers end once `stopped()` is true."""
    return open_store(config.run, config.storage, stopped=stopped)


def pull(config: RunConfig, console: Console) -> None:
    """Fill this machine's cache; the run folder is not touched."""
    stop = Stop(grace_seconds(config, os.environ)).listen()
    report = Report(config, console)
    with workspace() as local:
        try:
            pull_everything(config, local, stop, report)
        finally:
            report.close("stopped" if stop.requested() else "done")


def run(
    config: RunConfig,
    console: Console,
    take_over: bool = False,
    try_again: bool = False,
    opener: Opener = run_store,
) -> None:
    """Finish the run, or leave it further along. `opener`: how its folder is reached.

    Raises: every JobError of the exit-code table; Stopped when it left on request.
    """
    stop = Stop(grace_seconds(config, os.environ), config.max_time_seconds).listen()
    report = Report(config, console)
    for line in watch(stop, os.environ, say=report.message):
        report.message(line)
    with contextlib.ExitStack() as stack:
        with _announced(config, stop, report):
            local = stack.enter_context(workspace())
        outcome = "failed"
        try:
            node(config, stop, local, report, opener, take_over, try_again)
            outcome = "done"
        except Stopped:
            outcome = "stopped"
            raise
        finally:
            report.close(outcome)


def node(
    config: RunConfig,
    stop: Stop,
    local: RunDir,
    report: Report,
    opener: Opener,
    take_over: bool,
    try_again: bool,
) -> None:
    """What needs no claim first: a mistake in config, data or base model leaves the run folder as it was."""
    store = opener(config, stop.requested)
    record = read_run(store)
    if record is not None:
        refuse_another_run(config, record)
    if (finished := read_result(store)) is not None:
        report.message(f"{store.uri} is finished: step {finished.step}, result in {store.uri}/{finished.folder}")
        return
    with _announced(config, stop, report):
        machine = topology(config)
    if not machine.leads:
        from job.join import join

        join(config, record, machine, store, stop, local, report)
        return
    with crew(config, machine, stop, report.message) as nodes:
        lead(config, record, machine, nodes, store, stop, local, report, opener, take_over, try_again)


@contextlib.contextmanager
def _announced(config: RunConfig, stop: Stop, report: Report) -> Iterator[None]:
    """Where this node cannot even begin, node 0 hears of it, and does not wait for it."""
    try:
        yield
    except HardwareError as error:
        from job.join import announce

        announce(config, error, stop, report.message)
        raise


def lead(
    config: RunConfig,
    record: RunRecord | None,
    machine: Topology,
    nodes: Crew,
    store: ObjectStore,
    stop: Stop,
    local: RunDir,
    report: Report,
    opener: Opener,
    take_over: bool,
    try_again: bool,
) -> None:
    """One attempt, for all nodes of the job."""
    config = settle(config, record, machine)
    check_trackers(config)
    over = None if take_over else ensure_idle(store, stop.requested)
    past = history(store)
    if past and past[0].code is None and not take_over:
        report.message(
            f"attempt {past[0].owner.attempt} vanished after {spoken_seconds(past[0].seconds)}, without a word: it was "
            "killed, perhaps for its memory, or its machine is gone"
        )
    if not try_again:
        refuse_futile(store, past, config.to_dict(), __version__)
    inputs = gather(config, record, store, local, stop, report)
    layout = budget(config, local.base, machine, store, report.message)
    machine = replace(machine, strategy=layout.choice.strategy)
    refuse_to_begin(stop)
    owner = claim(store, config.to_dict(), __version__, take_over=take_over, stopped=stop.requested, over=over)
    if not owner.conditional:
        report.message(
            f"{store.uri} has no conditional PUT: two jobs that start at the same moment are told apart only afterwards"
        )
    writing = opener(config, lasting(stop))
    Attempt(config, store, writing, owner, inputs, machine, layout, nodes, local, stop, report, past).run()
