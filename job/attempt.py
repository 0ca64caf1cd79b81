"""THE STORY of an attempt: restore, launch, commit, publish; ranks that fail begin again in place.

Whatever ends it, the last commit stands, and its end record says why it ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from job.aftermath import aftermath
from job.budgets import Budget
from job.config import RunConfig, trajectory_digest
from job.errors import DataError, ExitCode, JobError, RankCrashed, Stopped
from job.follow import POLL_SECONDS, Follow, standing
from job.host.crew import Crew
from job.host.launcher import Ended
from job.host.preemption import Stop
from job.host.topology import Topology
from job.inputs import Inputs
from job.leaving import LEAVE_SECONDS, refuse_to_begin
from job.measured import Measured
from job.nodes import gather_nodes, tell_nodes
from job.pacer import Pacer
from job.publish import publish
from job.receipt import Receipt, prepared_rows
from job.report.report import Report
from job.restarts import Restarts
from job.rundir import RunDir, Spec
from job.settled import begin
from job.storage.attempts import Owner, write_end
from job.storage.checkpoints import Provenance, fetch_best, restore
from job.storage.committer import Committer
from job.storage.heartbeat import Heartbeat
from job.storage.history import Past, refuse_lost
from job.storage.records import RUN, Commit
from job.storage.store import ObjectStore
from job.versions import versions

RECEIPT_SECONDS = 2.0  # at the end, for what it still has to store

Resumed = tuple[str, Commit] | None


@dataclass
class Attempt:
    """After the claim. What is read on the way in, by `store`, stops with a stop request; what is written on the way
    out, by `lasting`, has the whole grace period."""

    config: RunConfig
    store: ObjectStore
    lasting: ObjectStore
    owner: Owner
    inputs: Inputs
    machine: Topology
    layout: Budget
    crew: Crew
    local: RunDir
    stop: Stop
    report: Report
    past: Sequence[Past] = ()
    measured: Measured = field(default_factory=Measured)
    committer: Committer | None = None
    receipt: Receipt | None = None
    launches: int = 0
    look_at: str = ""  # where the failed ranks' log, or their stacks, are kept

    def run(self) -> None:
        """Raises: every JobError of the exit-code table; Stopped when it left on request."""
        code, reason = ExitCode.DONE, "done"
        heart = Heartbeat(self.lasting, self.owner)
        try:
            with heart:
                tell_nodes(self.crew, self.config, self.store, self.owner, self.inputs, self.local)
                committer = self._train(heart)
                if self.receipt is not None:
                    self.receipt.wait(RECEIPT_SECONDS)
                publish(self.config, self.lasting, self.owner, self.inputs, self.local, committer, self.report)
        except RankCrashed as error:
            code, reason = error.exit_code, str(error)
            raise type(error)(f"{error}{self._what_next()}") from error
        except JobError as error:
            code, reason = error.exit_code, str(error)
            raise
        except BaseException as error:
            code, reason = ExitCode.CRASHED, f"{type(error).__name__}: {error}"
            raise
        finally:
            if code != ExitCode.FENCED:
                self._end(code, reason, heart)

    def _train(self, heart: Heartbeat) -> Committer:
        """Launch the ranks, again in place where that helps, until the last step is committed."""
        pacer, restarts = Pacer(self.config, self.local, self.past, self.report), Restarts()
        while True:
            committer = self._ready(self._restored())
            pacer.update(self.measured)
            refuse_to_begin(self.stop)
            gather_nodes(self.crew, self.stop, heart, committer)
            follow = Follow(
                self.config,
                self.machine,
                self.crew,
                self.local,
                self.stop,
                heart,
                committer,
                self.measured,
                self.report,
                self.receipt,
                lambda: pacer.update(self.measured),
                self.layout.keep,
            )
            ended = follow.to_the_end()
            self._conclude(ended, follow)
            if ended.error is None:
                return committer
            if not (lowered := self.layout.lower(ended.error)):
                restarts.refuse(ended.error, committer.parent, heart.stepped)
            self.machine = replace(self.machine, strategy=self.layout.choice.strategy)
            committer.trained_under(self.machine.strategy)
            self.report.message(f"{ended.error}; {lowered}the ranks begin again in place, {standing(committer)}")
            self.local.clear_launch()

    def _restored(self) -> Resumed:
        """Raises: DataError when commits are another run's, or were deleted: never a silent restart; as `restore`."""
        resumed = restore(self.store, self.owner.attempt, self.local.resume, self.report.message)
        if resumed is None:
            refuse_lost(self.store.uri, self.past)
        elif resumed[1].run_digest != trajectory_digest(self.config):
            raise DataError(
                f"{self.store.uri} has no {RUN}, and {resumed[0]} was made under another config: restore {RUN}, or "
                "begin anew in another run folder"
            )
        return resumed

    def _ready(self, resumed: Resumed) -> Committer:
        """Everything the ranks find in the run folder, and whoever commits what they leave there."""
        config, step = self.config, resumed[1].step if resumed else None
        evaluations = resumed[1].evaluations if resumed else []
        self.report.message(opening(self.owner, resumed))
        if self.committer is None:
            self.report.begin(self.lasting, self.owner.attempt, self.owner.nonce, step, self.local.path)
            self.committer = self._committer(resumed)
            self.receipt = self._receipt(resumed)
            if self.receipt is not None:
                self.receipt.begin()
        else:
            self.report.restarted(step)
            self.committer.go_on_from(resumed[0] if resumed else None, evaluations)
        best = config.best.step_of(evaluations)
        fetch_best(self.store, best, self.local.best, wanted=config.best.final == "best")
        self.launches += 1
        Spec(
            self.layout.settled().to_dict(),
            self.owner.attempt,
            self.owner.nonce,
            self.inputs.base_source,
            step,
            evaluations,
            self.launches,
            config.parallel.wait_seconds,
        ).write(self.local)
        return self.committer

    def _committer(self, resumed: Resumed) -> Committer:
        config, machine = self.config, self.machine
        return Committer(
            self.lasting,
            self.owner,
            Provenance(
                trajectory_digest(config), self.inputs.fingerprint, machine.world_size, machine.strategy, versions()
            ),
            resumed[0] if resumed else None,
            resumed[1].evaluations if resumed else [],
            config.checkpoint.keep,
            config.best.step_of,
            self.report.message,
            needs_best=config.best.final == "best",
            before_first=lambda: begin(
                config, self.lasting, self.owner, self.inputs, self.local, rows_stored=self.crew.several
            ),
        )

    def _receipt(self, resumed: Resumed) -> Receipt | None:
        """Of what the attempt resumed, once: a restart in place goes on from the attempt's own commit."""
        if resumed is None:
            return None
        rows = prepared_rows(self.local.prepared)
        machine, say = self.machine, self.report.message
        return Receipt(self.lasting, self.owner, resumed, machine, versions(), self.config, rows, say)

    def _conclude(self, ended: Ended, follow: Follow) -> None:
        """Commit what the ranks left, however they ended.

        Raises: Stopped; StorageError when the last snapshot could not be committed.
        """
        committer, stop = follow.committer, self.stop
        committer.offer(self.local.whole_snapshots())
        while not (in_time := committer.drain(POLL_SECONDS)) and stop.seconds_left > LEAVE_SECONDS:
            continue
        follow.tell_commits()
        if ended.error is not None:
            self._show_failure(ended.error, follow.stacks)
        if stop.requested() and (ended.error is not None or ended.code == ExitCode.STOPPED or not in_time):
            also = f"; meanwhile {ended.error}" if ended.error is not None else ""
            late = "" if in_time else "; the upload under way was not finished"
            raise Stopped(
                f"stopped by {stop.reason}; {standing(committer)}{late}{also}; run the same command again to go on"
            )
        if ended.error is None and committer.last_error is not None:
            raise committer.last_error

    def _show_failure(self, error: JobError, stacks: str) -> None:
        left = aftermath(self.local, error, stacks)
        for line in left.shown:
            self.report.message(f"  {line}")
        if not left.name:
            return
        key = f"attempts/{self.owner.name}-{left.name}"
        try:
            self.lasting.put(key, left.content)
        except JobError as problem:
            self.report.message(f"{key} was not stored: {problem}")
            return
        self.look_at = f"{self.lasting.uri}/{key}"
        self.report.message(f"  {left.name} is kept in {self.look_at}")

    def _what_next(self) -> str:
        """For a person who reads the last line only."""
        look = f"; see {self.look_at}" if self.look_at else ""
        there = self.committer is not None and self.committer.parent
        return f"{look}; the same command again goes on from {there or 'the start, as nothing was committed yet'}"

    def _end(self, code: int, reason: str, heart: Heartbeat) -> None:
        """An attempt that says how it ended spares the next one the wait for its heartbeat. Never raises."""
        step = self.committer.last_step if self.committer else 0
        try:
            write_end(self.lasting, self.owner, code, reason, step, heart.stepped, heart.seconds)
        except JobError as error:
            self.report.message(f"the end of attempt {self.owner.attempt} was not recorded: {error}")


def opening(owner: Owner, resumed: Resumed) -> str:
    if resumed is None:
        return f"attempt {owner.attempt}: a fresh start, there is no commit yet"
    key, commit = resumed
    return (
        f"attempt {owner.attempt}: resumed from step {commit.step} ({key}, by attempt {commit.attempt}: "
        f"the newest commit, all {len(commit.files)} files verified)"
    )
