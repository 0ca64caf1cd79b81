"""One launch of the ranks of all nodes, as its leader sees it: the first failure anywhere ends it everywhere."""

import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict
from types import TracebackType

from job.errors import ExitCode, JobError, NodeLost, RankCrashed, error_for, on_node
from job.host.gang import Gang, Report
from job.host.gang_messages import Launch
from job.host.launcher import SETTLE_SECONDS, WELL, Ended, Ranks
from job.host.topology import Topology
from job.rundir import RunDir, Spec

REPORT_SECONDS = 5.0  # after its ranks must have ended, for a node to say so
LINGER_SECONDS = 10.0  # once rank 0 has ended well, for others to end too: their work is done
# What ranks die of when a peer has died: gloo's, NCCL's and the key-value store's words.
ECHO = re.compile(
    r"Connection (closed|reset|was likely closed)|closed by peer|Broken pipe|remote process exited|NCCL error|"
    r"[Tt]imed? ?out|Failed to recv|pair closure"
)


class GangRanks:
    """As `Ranks` is for one node; none is left on this node when the block ends, and soon on the others."""

    def __init__(self, gang: Gang, run: RunDir, topology: Topology, module: str = "job.train") -> None:
        self._gang, self._run, self._others = gang, run, gang.others
        self._port, self._strategy = _free_port(), topology.strategy
        self._own = Ranks(run, topology, module, self._port)
        self._own_ended: Ended | None = None
        self._own_ended_at = 0.0
        self._settling_since: float | None = None
        self._through = False

    def __enter__(self) -> "GangRanks":
        spec = Spec.read(self._run)
        self._gang.launch(spec.launch, Launch(spec=asdict(spec), strategy=self._strategy, port=self._port))
        try:
            self._own.__enter__()
        except BaseException:
            self._gang.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._through:
            self._gang.end()
        self._own.kill()

    def stacks(self) -> str:
        """This node's; the others show theirs themselves."""
        self._gang.end(hung=True)
        return self._own.stacks()

    def ended(self) -> Ended | None:
        """None while all are well, and while those of a failed launch may still say why."""
        if self._own_ended is None and (ended := self._own.ended()) is not None:
            self._own_ended, self._own_ended_at = ended, time.monotonic()
        own = self._own_ended
        reports, lost = self._gang.ended()
        if self._settling_since is None and own is not None and own.error is None:
            return self._well(own, reports, lost)
        if lost:
            rank = min(lost)
            return Ended(ExitCode.CRASHED, on_node(NodeLost(f"node {rank} was lost ({lost[rank]})"), rank))
        failed = any(report.ended.code not in WELL for report in reports.values())
        if self._settling_since is None:
            if not (self._own.failing or self._gang.failing or failed):
                return None
            self._settling_since = time.monotonic()
            self._gang.settle()
            self._own.settle()
        silent = [rank for rank in self._others if rank not in reports]
        if own is None or silent:
            if time.monotonic() - self._settling_since > SETTLE_SECONDS + REPORT_SECONDS:
                for rank in silent:
                    self._gang.give_up(rank, "it does not say how its ranks ended")
            return None
        self._through = True
        return first_cause(own, self._own_ended_at, reports)

    def _well(self, own: Ended, reports: Mapping[int, Report], lost: Mapping[int, str]) -> Ended | None:
        """Rank 0 has done all it had to do; what a node had to do after that is nothing."""
        if any(report.ended.code not in WELL for report in reports.values()):
            self._through = True
            return first_cause(own, self._own_ended_at, reports)
        silent = [rank for rank in self._others if rank not in reports and rank not in lost]
        if silent and time.monotonic() - self._own_ended_at < LINGER_SECONDS:
            return None
        self._through = not silent
        return Ended(max([own.code, *(report.ended.code for report in reports.values())]), None)


def first_cause(own: Ended, own_ended_at: float, reports: Mapping[int, Report]) -> Ended:
    """What the launch failed of; times are this node's clock's.

    A signal from outside first, as its victim says nothing and its peers' errors follow from it; then what is no mere
    echo of a lost peer; then what was first.
    """
    found: list[tuple[bool, bool, float, int, JobError]] = []
    if own.error is not None:
        error = type(own.error)(f"node 0, {own.error}")
        failed_at = own_ended_at - own.seconds_ago
        found.append((not own.from_outside, bool(ECHO.search(str(error))), failed_at, 0, error))
    for rank, report in reports.items():
        told = report.ended
        if told.code not in WELL:
            error = on_node(error_for(told.code, f"node {rank}, {told.message}"), rank)
            found.append((not told.from_outside, bool(ECHO.search(told.message)), report.failed_at, rank, error))
    if not found:
        return Ended(ExitCode.CRASHED, RankCrashed("a rank failed, and no node says why"))
    error = min(found, key=lambda one: one[:4])[4]
    return Ended(error.exit_code, error)


def _free_port() -> int:
    """On every address of this machine: ranks of other nodes come to it."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
