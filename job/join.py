"""THE STORY of a node that does not lead: bring the same inputs, run ranks when told to, leave as the leader leaves.

It claims nothing, reads no checkpoint and writes nothing to the run folder. While the leader is away it waits, within a
bound, for whoever leads the run next.
"""

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from job.aftermath import aftermath
from job.brought import Brought
from job.config import RunConfig
from job.errors import ConfigError, ExitCode, JobError, Stopped, StorageError, error_for
from job.host.gang_admission import hello
from job.host.gang_client import Leader, Lost
from job.host.gang_line import Pace
from job.host.gang_messages import (
    Begin,
    Done,
    End,
    Failed,
    Failing,
    Launch,
    Message,
    RanksEnded,
    Ready,
    Settle,
    Stopping,
)
from job.host.launcher import Ended, Ranks
from job.host.leading import RECONNECT_SECONDS
from job.host.place import place
from job.host.preemption import Stop
from job.host.sources import starts_again
from job.host.topology import Topology
from job.leaving import LEAVE_SECONDS
from job.report.report import Report
from job.rundir import RunDir, Spec
from job.settled import read_result
from job.storage.records import RunRecord
from job.storage.store import ObjectStore

POLL_SECONDS = 0.1
ANNOUNCE_SECONDS = 60.0  # the leader may still be starting
LOOK_SECONDS = 10.0  # without a leader: it may have finished the run, and its last word been lost


def join(
    config: RunConfig,
    record: RunRecord | None,
    machine: Topology,
    store: ObjectStore,
    stop: Stop,
    local: RunDir,
    report: Report,
) -> None:
    """Returns when the run is finished. Raises: what the leader leaves with; Stopped; what keeps this node from it."""
    report.message(f"this is node {machine.node_rank} of {machine.nodes}, led from {machine.leader}:{machine.port}")
    with Leader(machine.leader, machine.port, hello(config, machine), report.message, Pace()) as leader:

        def interrupted() -> bool:
            return stop.requested() or leader.over

        brought = Brought(config, record, store, local, interrupted, report)
        try:
            Follower(config, machine, store, stop, local, report, leader, brought).run()
        except JobError as error:
            if not leader.over:
                leader.send(Failed(code=error.exit_code, message=str(error)))
            raise


def announce(config: RunConfig, error: JobError, stop: Stop, say: Callable[[str], None]) -> None:
    """Tell the leader, within a bound, why this node cannot take part: else it waits for a node that never comes."""
    try:
        here = place(os.environ)
    except ConfigError:  # nobody knows where to
        return
    if here.node_rank == 0:
        return
    machine = Topology("", 0, "", here.nodes, here.node_rank, here.leader, here.port)
    failed = Failed(code=error.exit_code, message=str(error))
    words = hello(config, machine).model_copy(update={"failed": failed})
    until = time.monotonic() + ANNOUNCE_SECONDS
    with Leader(here.leader, here.port, words, say, Pace()) as leader, contextlib.suppress(JobError, Lost):
        while time.monotonic() < until and not stop.requested():
            leader.hear(POLL_SECONDS)


@dataclass
class Follower:
    """One supervisor that obeys."""

    config: RunConfig
    machine: Topology
    store: ObjectStore
    stop: Stop
    local: RunDir
    report: Report
    leader: Leader
    brought: Brought
    stop_told: bool = False
    looked: bool = False  # whether the run is finished, since the leader is away
    done: Done | None = None

    def run(self) -> None:
        self.bring(None)
        while self.done is None:
            try:
                match self.hear():
                    case Begin() as begin:
                        self.bring(begin)
                    case Launch() as launch if not self.stop.requested():
                        self.train(launch)
            except Lost as lost:
                self.lost(str(lost))
        if self.done.code != ExitCode.DONE:
            raise error_for(self.done.code, self.done.reason)
        self.report.message("the run is finished")

    def bring(self, begin: Begin | None) -> None:
        """None: what does not depend on the leader's word. A stop, or the leader's last word, interrupts it."""
        try:
            if begin is None:
                self.brought.early()
                return
            self.brought.all_of(begin)
        except Stopped:
            if not self.stop.requested() and not self.leader.over:
                raise
            return
        self.leader.send(Ready(nonce=begin.nonce))

    def train(self, launch: Launch) -> None:
        """One launch of this node's ranks, until none is left. Raises: Lost."""
        spec = Spec(**launch.spec)
        self.local.clear_launch()
        spec.write(self.local)
        machine = replace(self.machine, strategy=launch.strategy)
        self.report.message(f"attempt {spec.attempt}, launch {spec.launch}: {_named(machine.ranks)}")
        failing, over, ended = False, False, None
        with Ranks(self.local, machine, port=launch.port) as ranks:
            while not over and self.done is None and (ended := ranks.ended()) is None:
                if ranks.failing and not failing:
                    failing = True
                    self.leader.send(Failing(nonce=spec.nonce, launch=spec.launch))
                match self.hear(once=True):
                    case Settle(launch=number) if number == spec.launch:
                        ranks.settle()
                    case End(launch=number, hung=hung) if number == spec.launch:
                        over = True
                        if hung:
                            self.show(ranks.stacks().splitlines())
        ended = ended or Ended(ExitCode.STOPPED, None)
        if ended.error is not None:
            self.show([str(ended.error), *aftermath(self.local, ended.error, "").shown])
        self.leader.send(
            RanksEnded(
                nonce=spec.nonce,
                launch=spec.launch,
                code=ended.code,
                message=str(ended.error or ""),
                from_outside=ended.from_outside,
                seconds_ago=ended.seconds_ago,
            )
        )

    def hear(self, once: bool = False) -> Message | None:
        """The leader's next message; `once`: None when there is none for a moment.

        Raises: Lost; Stopped when the leader stays away, or there is no time left to wait for its last word; the
        leader's refusal.
        """
        while True:
            self.mind_the_stop()
            self.mind_the_leader()
            if self.done is not None:
                return None
            match message := self.leader.hear(POLL_SECONDS):
                case Done():
                    self.done = message
                case Stopping(reason=reason):
                    self.report.message(f"{reason}: the job stops at its next step")
            if message is not None or once or self.done is not None:
                return message

    def mind_the_stop(self) -> None:
        """The leader is told, and brings all nodes to an end; without it, this one leaves at once."""
        if not self.stop.requested():
            return
        reason, left = self.stop.reason or "stop", self.stop.seconds_left
        if self.leader.away_seconds > 0 or left < LEAVE_SECONDS / 2:
            raise Stopped(f"stopped by {reason}; run the same command again to go on")
        if not self.stop_told:
            self.stop_told = True
            self.report.message(f"{reason}: asking node 0 to stop the job")
            self.leader.send(Stopping(reason=reason, seconds_left=left))

    def mind_the_leader(self) -> None:
        """It may stay away because all is done."""
        away = self.leader.away_seconds
        if away > LOOK_SECONDS and not self.looked:
            self.looked = True
            self.look()
        patience = self.config.parallel.wait_seconds
        if self.leader.was_here and not starts_again(os.environ):
            patience = min(RECONNECT_SECONDS, patience)
        if away > patience and self.done is None:
            self.look()
            if self.done is None:
                waited = f"{patience:.0f}s" if self.leader.was_here else self.config.parallel.wait_for_nodes
                place = self.leader.place
                if why := self.leader.why_refused:
                    raise ConfigError(f"{place} did not take this node within {waited}: {why}")
                if why := self.leader.why_nowhere:
                    raise ConfigError(f"{place} was not found within {waited}: {why}")
                raise Stopped(f"{place} was not reached within {waited}; run the same command again to go on")

    def lost(self, why: str) -> None:
        """Nothing it asked for holds any more."""
        self.report.message(f"node 0 was lost ({why}); waiting for it, or for whoever leads this run next")
        self.stop_told = self.looked = False

    def look(self) -> None:
        """Is the run finished? A store that does not answer is no reason to leave."""
        with contextlib.suppress(StorageError):
            if read_result(self.store) is not None:
                self.done = Done(code=ExitCode.DONE, reason="done")

    def show(self, lines: list[str]) -> None:
        for line in lines:
            self.report.message(f"  {line}")


def _named(ranks: range) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
