"""The node that leads: it tells the others what to bring, waits for them within a bound, and has the last word."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from job.config import RunConfig
from job.errors import ExitCode, HardwareError, JobError, Stopped, error_for, on_node
from job.host.crew import AllRanks
from job.host.gang import Gang
from job.host.gang_admission import hello
from job.host.gang_line import Pace
from job.host.gang_messages import Begin
from job.host.gang_ranks import GangRanks
from job.host.gang_server import listening
from job.host.preemption import Stop
from job.host.sources import starts_again
from job.host.topology import Topology
from job.rundir import RunDir

POLL_SECONDS = 0.2
PACE = Pace()
RECONNECT_SECONDS = 60.0  # for a node that was here, where no other can come in its stead


class Leading:
    """This node leads others."""

    several = True

    def __init__(
        self, gang: Gang, wait_seconds: float, waited: str, say: Callable[[str], None], replaced: bool = True
    ) -> None:
        """`replaced`: the launcher starts a node again that left."""
        self._gang, self._wait_seconds, self._waited, self._say = gang, wait_seconds, waited, say
        self._replaced = replaced

    def begin(self, begin: Begin) -> None:
        self._gang.begin(begin)

    def gather(self, check: Callable[[], object], standing: Callable[[], str]) -> None:
        since: dict[int, float] = {}  # node -> when it was first missed
        told = ""
        while True:
            absent, busy = self._gang.missing()
            if not absent and not busy:
                return
            check()
            now = time.monotonic()
            since = {rank: since.get(rank, now) for rank in absent}
            late = [rank for rank in absent if now - since[rank] > self._patience_seconds(rank)]
            self._give_up_on_those_that_left(absent, late, standing)
            if late and not self._replaced and late[0] not in self._gang.why_lost:
                text = f"{self._missed(late[:1])} within {self._waited}, and nothing will start it again; {standing()}"
                raise on_node(HardwareError(text), late[0])
            if late:
                waited = f"{self._patience_seconds(late[0]):.0f}s" if not self._replaced else self._waited
                raise Stopped(
                    f"{self._missed(late)} within {waited}; {standing()}; run the same command again to go on"
                )
            if absent:
                text = f"waiting for {_nodes(absent)} of {len(self._gang.others) + 1}"
            else:
                text = f"waiting for the inputs of {_nodes(busy)}"
            if text != told:
                told = text
                self._say(text)
            self._gang.wait(POLL_SECONDS)

    def _give_up_on_those_that_left(self, absent: list[int], late: list[int], standing: Callable[[], str]) -> None:
        """Who said why it cannot take part, or was told so, would say or be told the same again.

        Who was told so may have been another job's node: ours may still come.
        """
        for rank in absent:
            refused = self._gang.refused.get(rank)
            gone = refused is not None and not self._replaced and refused.code != ExitCode.CONFIG
            if refused is not None and (rank in late or gone):
                within = f" within {self._waited}" if rank in late else ""
                text = f"{self._missed(late or [rank])}{within}; {refused.reason}; {standing()}"
                raise on_node(error_for(refused.code, text), rank)

    def _patience_seconds(self, rank: int) -> float:
        lost = rank in self._gang.why_lost and not self._replaced
        return min(RECONNECT_SECONDS, self._wait_seconds) if lost else self._wait_seconds

    def _missed(self, late: list[int]) -> str:
        lost = all(rank in self._gang.why_lost for rank in late)
        was = "was" if len(late) == 1 else "were"
        return f"{_nodes(late)} {was} lost and did not return" if lost else f"{_nodes(late)} did not come"

    def stopping(self, reason: str, seconds_left: float) -> None:
        self._gang.stopping(reason, seconds_left)

    def ranks(self, local: RunDir, machine: Topology) -> AllRanks:
        return GangRanks(self._gang, local, machine)


def _nodes(ranks: list[int]) -> str:
    return f"node{'' if len(ranks) == 1 else 's'} {', '.join(map(str, ranks))}"


@contextlib.contextmanager
def leading(
    config: RunConfig, machine: Topology, stop: Stop, say: Callable[[str], None], pace: Pace = PACE
) -> Iterator[Leading]:
    """However the block ends, the others leave as this node does. Raises: HardwareError."""
    gang = Gang(hello(config, machine), say, stop.request, pace)
    with listening(gang, machine.port, pace) as port:
        say(f"this node leads {machine.nodes} nodes, at {machine.leader}:{port}")
        code, reason = int(ExitCode.DONE), "done"
        try:
            parallel = config.parallel
            yield Leading(gang, parallel.wait_seconds, parallel.wait_for_nodes, say, starts_again(os.environ))
        except JobError as error:
            code, reason = int(error.exit_code), str(error)
            raise
        except BaseException as error:
            code, reason = int(ExitCode.CRASHED), f"{type(error).__name__}: {error}"
            raise
        finally:
            gang.done(code, reason)
