"""The nodes of a job as whoever leads it works with them: told what to bring, waited for, and told the end."""

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from job.config import RunConfig
from job.host.launcher import Ended, Ranks
from job.host.preemption import Stop
from job.host.topology import Topology
from job.rundir import RunDir

if TYPE_CHECKING:
    from job.host.gang_messages import Begin


class AllRanks(Protocol):
    """The ranks of one launch, on however many nodes; none is left when the block ends."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def ended(self) -> Ended | None: ...
    def stacks(self) -> str: ...


class Crew(Protocol):
    """All nodes of the job."""

    several: bool

    def begin(self, begin: "Begin") -> None:
        """This is the attempt, and what each node has to bring."""
        ...

    def gather(self, check: Callable[[], object], standing: Callable[[], str]) -> None:
        """Returns when all nodes are ready to launch. `check` raises what ends the waiting, `standing` says what is
        left when it was in vain. Raises: Stopped when a node stays away for too long."""
        ...

    def stopping(self, reason: str, seconds_left: float) -> None:
        """The ranks were asked to stop."""
        ...

    def ranks(self, local: RunDir, machine: Topology) -> AllRanks:
        """Those of the launch that the spec in `local` describes."""
        ...


class Alone:
    """One node."""

    several = False

    def begin(self, begin: "Begin") -> None:
        pass

    def gather(self, check: Callable[[], object], standing: Callable[[], str]) -> None:
        pass

    def stopping(self, reason: str, seconds_left: float) -> None:
        pass

    def ranks(self, local: RunDir, machine: Topology) -> AllRanks:
        return Ranks(local, machine)


@contextlib.contextmanager
def crew(config: RunConfig, machine: Topology, stop: Stop, say: Callable[[str], None]) -> Iterator[Crew]:
    """All nodes of this job; however the block ends, the others leave as this one does. Raises: HardwareError."""
    if machine.nodes == 1:
        yield Alone()
        return
    from job.host.leading import leading

    with leading(config, machine, stop, say) as nodes:
        yield nodes
