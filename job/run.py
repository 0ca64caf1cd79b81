"""The story of a node: pull, claim, launch, commit, report.

A run is a folder in object storage; everything else may vanish at any instant. The same command on any machine that
reaches the folder either finishes the run or leaves it further along.
"""

import time

from rich.console import Console

from job import __version__
from job.config import RunConfig, trajectory_digest
from job.errors import ExitCode, JobError, Stopped
from job.host.launcher import Ended, Ranks
from job.host.preemption import Stop
from job.host.topology import Topology, topology
from job.inputs import Inputs, gather, pull_everything
from job.publish import publish
from job.report.report import Report
from job.report.trackers import check_trackers
from job.rundir import EventReader, RunDir, Spec
from job.settled import begin, read_result, read_run, refuse_another_run, settle
from job.storage.attempts import Owner, claim, ensure_idle, write_end
from job.storage.checkpoints import Provenance, fetch_best, restore
from job.storage.committer import Committer
from job.storage.heartbeat import Heartbeat
from job.storage.records import Commit
from job.storage.store import ObjectStore, open_store
from job.versions import versions
from job.workspace import workspace

POLL_SECONDS = 0.1
FLUSH_SECONDS = 10.0
UPLOAD_SHARE = 0.4  # of the grace period is kept for uploading what the ranks leave
LEAVE_SECONDS = 2.0  # of the grace period is left for the end record and the report
LOG_TAIL_LINES = 30


def pull(config: RunConfig, console: Console) -> None:
    """Fill this machine's cache; the run folder is not touched."""
    stop = Stop(config.grace_seconds).listen()
    report = Report(config, console)
    with workspace() as local:
        try:
            pull_everything(config, local, stop, report)
        finally:
            report.close("stopped" if stop.requested() else "done")


def run(config: RunConfig, console: Console, take_over: bool = False) -> None:
    """Finish the run, or leave it further along.

    Raises: every JobError of the exit-code table; Stopped when it left on request.
    """
    stop = Stop(config.grace_seconds, config.max_time_seconds).listen()
    report = Report(config, console)
    with workspace() as local:
        outcome = "failed"
        try:
            node(config, stop, local, report, take_over)
            outcome = "done"
        except Stopped:
            outcome = "stopped"
            raise
        finally:
            report.close(outcome)


def node(config: RunConfig, stop: Stop, local: RunDir, report: Report, take_over: bool) -> None:
    """What needs no claim first: a mistake in config, data or base model leaves the run folder as it was."""
    store = open_store(config.run, config.storage, stopped=stop.requested)
    record = read_run(store)
    if record is not None:
        refuse_another_run(config, record)
    if (finished := read_result(store)) is not None:
        report.message(f"{store.uri} is finished: step {finished.step}, result in {store.uri}/{finished.folder}")
        return
    machine = topology(config)
    config = settle(config, record, machine)
    check_trackers(config)
    over = None if take_over else ensure_idle(store, stop.requested)
    inputs = gather(config, record, store, local, stop, report)
    refuse_to_begin(stop)
    owner = claim(store, config.to_dict(), __version__, take_over=take_over, stopped=stop.requested, over=over)
    if not owner.conditional:
        report.message(
            f"{store.uri} has no conditional PUT: two jobs that start at the same moment are told apart only afterwards"
        )
    attempt(config, store, owner, inputs, machine, local, stop, report)


def refuse_to_begin(stop: Stop) -> None:
    """Starting ranks takes longer than a grace period may last. Raises: Stopped."""
    if stop.requested():
        raise Stopped(f"stopped by {stop.reason} before the first step of this attempt; run the same command again")


def attempt(
    config: RunConfig,
    store: ObjectStore,
    owner: Owner,
    inputs: Inputs,
    machine: Topology,
    local: RunDir,
    stop: Stop,
    report: Report,
) -> None:
    """One attempt, from its claim to its end record."""
    committer: Committer | None = None
    code, reason = ExitCode.DONE, "done"
    # What is written on the way out has the whole grace period; what is read on the way in stops with the request.
    lasting = open_store(config.run, config.storage, stopped=lambda: stop.seconds_left < LEAVE_SECONDS)
    try:
        with Heartbeat(lasting, owner) as heart:
            resumed = restore(store, owner.attempt, local.resume, report.message)
            report.begin(lasting, owner.attempt, owner.nonce, resumed[1].step if resumed else None, local.path)
            report.message(opening(owner, resumed))
            evaluations = resumed[1].evaluations if resumed else []
            fetch_best(store, config.best.step_of(evaluations), local.best, wanted=config.best.final == "best")
            Spec(
                config.to_dict(),
                owner.attempt,
                owner.nonce,
                inputs.base_source,
                resumed[1].step if resumed else None,
                evaluations,
            ).write(local)
            source = Provenance(
                trajectory_digest(config), inputs.fingerprint, machine.world_size, machine.strategy, versions()
            )
            committer = Committer(
                lasting,
                owner,
                source,
                resumed[0] if resumed else None,
                evaluations,
                config.checkpoint.keep,
                config.best.step_of,
                report.message,
                needs_best=config.best.final == "best",
                before_first=lambda: begin(config, lasting, owner, inputs, local),
            )
            refuse_to_begin(stop)
            ended = follow(local, machine, stop, heart, committer, report)
            conclude(ended, committer, stop, local, report)
            publish(config, lasting, owner, inputs, local, committer, report)
    except JobError as error:
        code, reason = error.exit_code, str(error)
        raise
    except BaseException as error:
        code, reason = ExitCode.CRASHED, f"{type(error).__name__}: {error}"
        raise
    finally:
        if code != ExitCode.FENCED:
            end(lasting, owner, code, reason, committer, report)


def follow(
    local: RunDir, machine: Topology, stop: Stop, heart: Heartbeat, committer: Committer, report: Report
) -> Ended:
    """Launch the ranks and see them to their end: events are reported, snapshots committed, stops passed on."""
    events = EventReader(local.events)
    flushed, training = time.monotonic(), False
    with Ranks(local, machine) as ranks:
        report.starting(machine.world_size)
        while (ended := ranks.ended()) is None:
            told = events.read()
            report.handle(told)
            training = training or any(event["kind"] == "training" for event in told)
            committer.offer(local.whole_snapshots())
            tell(committer, report)
            heart.check()
            if stop.requested() and local.stop_requested() is None:
                report.message(f"{stop.reason}: stopping at the next step")
                local.request_stop(stop.reason or "stop")
            if stop.requested() and not training:  # ranks that still import have nothing to save
                ended = Ended(ExitCode.STOPPED, None)
                break
            if stop.seconds_left < UPLOAD_SHARE * stop.grace_seconds:
                report.message("the ranks did not reach a step boundary in time; the last commit stands")
                ended = Ended(ExitCode.STOPPED, None)
                break
            if time.monotonic() - flushed > FLUSH_SECONDS:
                flushed = time.monotonic()
                report.flush()
            time.sleep(POLL_SECONDS)
    report.handle(events.read())
    return ended


def conclude(ended: Ended, committer: Committer, stop: Stop, local: RunDir, report: Report) -> None:
    """Commit what the ranks left, however they ended.

    Raises: the first failing rank's error; Stopped; StorageError when the last snapshot could not be committed.
    """
    committer.offer(local.whole_snapshots())
    while not (in_time := committer.drain(POLL_SECONDS)) and stop.seconds_left > LEAVE_SECONDS:
        continue
    tell(committer, report)
    last = f"the last commit is {committer.parent}" if committer.parent else "nothing was committed yet"
    if ended.error is not None:
        for line in log_tail(local):
            report.message(line)
        raise ended.error
    if ended.code == ExitCode.STOPPED or not in_time:
        late = "" if in_time else "; the upload under way was not finished"
        raise Stopped(f"stopped by {stop.reason}; {last}{late}; run the same command again to go on")
    if committer.last_error is not None:
        raise committer.last_error


def tell(committer: Committer, report: Report) -> None:
    for done in committer.take():
        report.committed(done.step, done.seconds, done.size_bytes)
        report.flush()


def opening(owner: Owner, resumed: tuple[str, Commit] | None) -> str:
    if resumed is None:
        return f"attempt {owner.attempt}: a fresh start, there is no commit yet"
    key, commit = resumed
    return (
        f"attempt {owner.attempt}: resumed from step {commit.step} ({key}, by attempt {commit.attempt}: "
        f"the newest commit, all {len(commit.files)} files verified)"
    )


def end(store: ObjectStore, owner: Owner, code: int, reason: str, committer: Committer | None, report: Report) -> None:
    """An attempt that says how it ended spares the next one the wait for its heartbeat. Never raises."""
    try:
        write_end(store, owner, code, reason, committer.last_step if committer else 0)
    except JobError as error:
        report.message(f"the end of attempt {owner.attempt} was not recorded: {error}")


def log_tail(local: RunDir) -> list[str]:
    """The last lines of the log of the rank that failed first; its last line is the cause and comes at the very end."""
    failed = sorted(local.path.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    name = failed[0].stem.replace("error", "rank") if failed else "rank-0"
    log = local.log(name)
    if not log.exists():
        return []
    return [
        f"  {name}| {line}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    ]
