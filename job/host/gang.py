"""The job's nodes as their leader sees them: who is here, who is ready, how each one's ranks ended, who was lost.

One thread for each connection takes in what its node says; the supervisor's main thread asks for what came of it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from job.errors import ExitCode, JobError, error_for, on_node
from job.host.gang_admission import Member, Strangers, refusal
from job.host.gang_line import Line, LineLost, Pace
from job.host.gang_messages import (
    Begin,
    Done,
    End,
    Failed,
    Failing,
    Hello,
    Launch,
    Message,
    RanksEnded,
    Ready,
    Refused,
    Settle,
    Stopping,
    Welcome,
)

NEVER_BETTER = (ExitCode.DATA, ExitCode.CONFIG)  # a node that leaves with one of these leaves with it again
CLOSE_SECONDS = 3.0  # for the others to hear the last word
ARRIVE_SECONDS = 5.0  # from the start: who looks for the leader already finds it, however soon it fails


@dataclass(frozen=True)
class Report:
    """How a node's ranks ended, on the leader's monotonic clock."""

    ended: RanksEnded
    failed_at: float


class Gang:
    """`ours`: what the leader would say of itself. `asked_to_stop`: called when a node was, with reason and seconds."""

    def __init__(
        self, ours: Hello, say: Callable[[str], None], asked_to_stop: Callable[[str, float], None], pace: Pace
    ) -> None:
        self._ours, self._say, self._asked_to_stop, self._pace = ours, say, asked_to_stop, pace
        self._changed = threading.Condition()
        self._members: dict[int, Member] = {}
        self._begin: Begin | None = None
        self._done: Done | None = None
        self._fatal: JobError | None = None
        self._launch = 0
        self._failing = False
        self._reports: dict[int, Report] = {}
        self._lost: dict[int, str] = {}  # in this launch, before they said how their ranks ended
        self._strangers = Strangers(say)
        self._came: set[int] = set()
        self._began = time.monotonic()
        self.refused: dict[int, Refused] = {}  # or left, and why; while none that fits came in its stead
        self.why_lost: dict[int, str] = {}  # of those that were here once and are not

    @property
    def others(self) -> range:
        return range(1, self._ours.nodes)

    # ---- what a connection's thread does

    def serve(self, line: Line, peer: str) -> None:
        """From a stranger's first byte to the end of its connection."""
        try:
            hello = line.receive(self._pace.hello_seconds)
            if not isinstance(hello, Hello):
                raise LineLost("it did not say hello")
            line.trust()
        except LineLost as error:
            self._strangers.tell(f"a connection from {peer.rpartition(':')[0]} was closed: {error}")
            return
        if (member := self._admitted(line, hello, peer)) is None:
            return
        try:
            while True:
                self._take(member, line.receive())
        except LineLost as error:
            self._gone(member, str(error))

    def _admitted(self, line: Line, hello: Hello, peer: str) -> Member | None:
        rank, member = hello.node_rank, Member(line, hello)
        with self._changed:
            before = self._members.get(rank)
            refused = refusal(self._ours, hello, before.hello if before else None)
            if refused is None:
                if before is not None:  # the same supervisor: it lost the connection before we did
                    before.line.hang_up()
                    self._forget(before, "it came back over another connection")
                self._enter(member)
        if refused is None:
            here = "here again" if hello.again else "here"
            self._say(f"node {rank} of {self._ours.nodes} is {here} ({hello.host or 'unnamed'}, {peer})")
            return member
        with contextlib.suppress(LineLost):
            line.send(refused)
        if rank in self.others and not refused.again:
            self.refused[rank] = refused
        self._strangers.tell(f"{peer.rpartition(':')[0]} was refused: {refused.reason}")
        return None

    def _enter(self, member: Member) -> None:
        self._came.add(member.hello.node_rank)
        self._members[member.hello.node_rank] = member
        self.why_lost.pop(member.hello.node_rank, None)
        self.refused.pop(member.hello.node_rank, None)
        try:
            member.line.send(Welcome())
            if (word := self._done or self._begin) is not None:
                member.line.send(word)
        except LineLost:
            member.line.hang_up()  # whoever receives from it finds that out
        self._changed.notify_all()

    def _take(self, member: Member, message: Message) -> None:
        rank = member.hello.node_rank
        with self._changed:
            here = self._begin.nonce if self._begin else ""
            match message:
                case Ready(nonce=nonce):
                    member.ready_for = nonce
                case Failing(nonce=nonce, launch=launch) if (nonce, launch) == (here, self._launch):
                    self._failing = True
                case RanksEnded(nonce=nonce, launch=launch) if (nonce, launch) == (here, self._launch):
                    self._reports[rank] = Report(message, time.monotonic() - message.seconds_ago)
                case Failed(code=code, message=reason):
                    self._say(f"node {rank} leaves with exit code {code}: {reason}")
                    if code in NEVER_BETTER:
                        self._fatal = on_node(error_for(code, f"node {rank}: {reason}"), rank)
                    elif code != ExitCode.STOPPED:
                        self.refused[rank] = Refused(code=code, reason=reason)
                case Stopping(reason=reason, seconds_left=left):
                    self._asked_to_stop(f"{reason} on node {rank}", left)
            self._changed.notify_all()

    def _gone(self, member: Member, why: str) -> None:
        with self._changed:
            if self._members.get(member.hello.node_rank) is not member:
                return
            self._forget(member, why)
            told = self._done is None
            self._changed.notify_all()
        if told:
            self._say(f"node {member.hello.node_rank} was lost: {why}")

    def _forget(self, member: Member, why: str) -> None:
        rank = member.hello.node_rank
        del self._members[rank]
        self.why_lost[rank] = why
        if self._launch and rank not in self._reports:
            self._lost.setdefault(rank, why)

    # ---- what the leader's main thread does

    def begin(self, begin: Begin) -> None:
        """From now on this is the attempt, for those who are here and those who come."""
        with self._changed:
            self._begin = begin
            self._tell(begin)

    def missing(self) -> tuple[list[int], list[int]]:
        """(nodes that are not here, nodes that are and not ready yet). Raises: what a node cannot be helped out of."""
        with self._changed:
            if self._fatal is not None:
                raise self._fatal
            nonce = self._begin.nonce if self._begin else None
            absent = [rank for rank in self.others if rank not in self._members]
            busy = [rank for rank, member in self._members.items() if member.ready_for != nonce]
            return absent, sorted(busy)

    def wait(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def launch(self, number: int, launch: Launch) -> None:
        """Who is not ready any more, a replacement that has just come for instance, is lost to this launch."""
        with self._changed:
            self._launch, self._failing = number, False
            absent, busy = self.missing()
            self._reports, self._lost = {}, {rank: self.why_lost.get(rank, "it is not here") for rank in absent}
            self._lost |= dict.fromkeys(busy, "it is not ready")
            self._tell(launch, but=busy)

    def settle(self) -> None:
        self._tell(Settle(launch=self._launch))

    def end(self, hung: bool = False) -> None:
        self._tell(End(launch=self._launch, hung=hung))

    def stopping(self, reason: str, seconds_left: float) -> None:
        self._tell(Stopping(reason=reason, seconds_left=seconds_left))

    @property
    def failing(self) -> bool:
        return self._failing

    def ended(self) -> tuple[dict[int, Report], dict[int, str]]:
        """(reports, nodes that were lost before theirs) of the launch; it is over when both name all others."""
        with self._changed:
            if self._fatal is not None:
                raise self._fatal
            return dict(self._reports), dict(self._lost)

    def give_up(self, rank: int, why: str) -> None:
        """A node that does not answer is a lost one."""
        with self._changed:
            if (member := self._members.get(rank)) is not None:
                member.line.hang_up()
                self._forget(member, why)
            self._lost.setdefault(rank, why)

    def done(self, code: int, reason: str) -> None:
        """The last word; returns when all who are here have heard it, or soon. Of a failure those hear too who were
        about to come: else they would wait for a leader that never returns."""
        with self._changed:
            self._done = Done(code=code, reason=reason)
            self._tell(self._done)
            for member in self._members.values():
                member.line.finish()
            if code not in (ExitCode.DONE, ExitCode.STOPPED):
                left = self._began + ARRIVE_SECONDS - time.monotonic()
                self._changed.wait_for(lambda: len(self._came) == len(self.others), left)
            self._changed.wait_for(lambda: not self._members, CLOSE_SECONDS)
            for member in list(self._members.values()):
                member.line.hang_up()

    def _tell(self, message: Message, but: Collection[int] = ()) -> None:
        """Who cannot be told is lost: its own thread finds that out."""
        with self._changed:
            for rank, member in self._members.items():
                try:
                    if rank not in but:
                        member.line.send(message)
                except LineLost:
                    member.line.hang_up()
