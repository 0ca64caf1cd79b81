"""Sees the ranks of one launch to their end: events are reported, snapshots committed, stops passed on, hangs ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from job.config import RunConfig
from job.errors import ExitCode, NotFinite, RankHung
from job.host.budget import decide, ranks_deadline, snapshot_deadline
from job.host.crew import AllRanks, Crew
from job.host.launcher import Ended
from job.host.preemption import Stop
from job.host.topology import Topology
from job.host.watchdog import Watchdog
from job.measured import Measured
from job.receipt import Receipt
from job.report.report import Report
from job.rundir import EventReader, RunDir
from job.storage.committer import Committer
from job.storage.heartbeat import Heartbeat

POLL_SECONDS = 0.1
FLUSH_SECONDS = 10.0


@dataclass
class Follow:
    """One launch of the ranks, from their start until none is left."""

    config: RunConfig
    machine: Topology
    crew: Crew
    local: RunDir
    stop: Stop
    heart: Heartbeat
    committer: Committer
    measured: Measured
    report: Report
    receipt: Receipt | None  # of what the attempt resumed
    committed: Callable[[], object]  # called after each commit
    proven: Callable[[Measured], object] = lambda measured: None  # likewise
    stacks: str = ""  # of ranks that hung

    def __post_init__(self) -> None:
        self._events = EventReader(self.local.events)
        self._watchdog = Watchdog(self.config.hang_after_seconds)
        self._training = self._captured = self._written = False  # the latter two: after a stop was asked for
        self._not_finite: NotFinite | None = None

    def to_the_end(self) -> Ended:
        flushed = time.monotonic()
        with self.crew.ranks(self.local, self.machine) as ranks:
            self.report.starting(self.machine.world_size)
            while (ended := ranks.ended() or self._to_end(ranks)) is None:
                self._listen()
                self.committer.offer(self.local.whole_snapshots())
                self.tell_commits()
                self.heart.check()
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    flushed = time.monotonic()
                    self.report.flush()
                time.sleep(POLL_SECONDS)
        self._listen()
        if self._not_finite is not None and ended.error is not None:
            return Ended(ended.code, self._not_finite)
        return ended

    def _listen(self) -> None:
        told = self._events.read()
        self._watchdog.saw(told)
        self.measured.saw(told)
        for event in told:
            self._training = self._training or event["kind"] == "training"
            if event["kind"] == "step":
                self.heart.step_taken()
                if self.receipt is not None:
                    self.receipt.step(event)
            if self.local.stop_requested() is not None:
                self._captured = self._captured or event["kind"] == "snapshot"
                self._written = self._written or event["kind"] == "snapshot_written"
            if event["kind"] == "not_finite":
                self._not_finite = NotFinite(event["message"])
        self.report.handle(told)

    def tell_commits(self) -> None:
        for done in self.committer.take():
            self.measured.uploaded(done.seconds)
            self.report.committed(done.step, done.seconds, done.size_bytes)
            self.committed()
            self.proven(self.measured)
            self.report.flush()

    def _to_end(self, ranks: AllRanks) -> Ended | None:
        """Why ranks that still run are to be ended now."""
        if self.stop.requested():
            self._listen()  # what the ranks told before the stop counts: they may be training by now
            if (ended := self._to_leave()) is not None:
                return ended
        if (problem := self._watchdog.overdue()) is not None:
            self.stacks = ranks.stacks()
            return Ended(ExitCode.CRASHED, RankHung(problem))
        return None

    def _to_leave(self) -> Ended | None:
        """A stop was asked for: None while the ranks may still bring a checkpoint that can be uploaded in time."""
        stop, in_flight = self.stop, self.committer.uploading_seconds
        known = (stop.seconds_left, stop.budget_seconds, self.measured.durations(), in_flight)
        if not self._training:  # ranks that still import have nothing to save
            return Ended(ExitCode.STOPPED, None)
        if self.local.stop_requested() is None:
            spend = decide(*known)
            if spend == "checkpoint":
                self.report.message(f"{stop.reason}: stopping at the next step")
                self.local.request_stop(stop.reason or "stop")
                self.crew.stopping(stop.reason or "stop", stop.seconds_left)
                return None
            what = "the upload under way is finished" if spend == "finish_upload" else standing(self.committer)
            self.report.message(f"{stop.reason}: {stop.seconds_left:.0f} s are too few for another checkpoint; {what}")
            return Ended(ExitCode.STOPPED, None)
        if self._written or (snapshot_deadline if self._captured else ranks_deadline)(*known) > 0:
            return None
        self.report.message(f"the ranks did not reach a step boundary in time; {standing(self.committer)}")
        return Ended(ExitCode.STOPPED, None)


def standing(committer: Committer) -> str:
    """What is left where nothing more is committed."""
    return f"the last commit is {committer.parent}" if committer.parent else "nothing was committed yet"
