"""The node that leads: it tells the others what to bring, waits for them within a bound, and has the last word."""

import contextlib
import time
from collections.abc import Callable, Iterator

from job.config import RunConfig
from job.errors import ExitCode, JobError, Stopped, error_for
from job.host.crew import AllRanks
from job.host.gang import Gang
from job.host.gang_admission import hello
from job.host.gang_line import Pace
from job.host.gang_messages import Begin
from job.host.gang_ranks import GangRanks
from job.host.gang_server import listening
from job.host.preemption import Stop
from job.host.topology import Topology
from job.rundir import RunDir

POLL_SECONDS = 0.2
PACE = Pace()


class Leading:
    """This node leads others."""

    several = True

    def __init__(self, gang: Gang, wait_seconds: float, waited: str, say: Callable[[str], None]) -> None:
        self._gang, self._wait_seconds, self._waited, self._say = gang, wait_seconds, waited, say

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
            if late := [rank for rank in absent if now - since[rank] > self._wait_seconds]:
                refused = next((self._gang.refused[rank] for rank in late if rank in self._gang.refused), None)
                if refused is not None:  # it would be refused again
                    text = f"{self._missed(late)} within {self._waited}; {refused.reason}; {standing()}"
                    raise error_for(refused.code, text)
                raise Stopped(
                    f"{self._missed(late)} within {self._waited}; {standing()}; run the same command again to go on"
                )
            if absent:
                text = f"waiting for {_nodes(absent)} of {len(self._gang.others) + 1}"
            else:
                text = f"waiting for the inputs of {_nodes(busy)}"
            if text != told:
                told = text
                self._say(text)
            self._gang.wait(POLL_SECONDS)

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
            yield Leading(gang, config.parallel.wait_seconds, config.parallel.wait_for_nodes, say)
        except JobError as error:
            code, reason = int(error.exit_code), str(error)
            raise
        except BaseException as error:
            code, reason = int(ExitCode.CRASHED), f"{type(error).__name__}: {error}"
            raise
        finally:
            gang.done(code, reason)
