"""Starts the ranks of this node, notices the first that fails, and leaves none behind.

Ranks start with the stop signals blocked (the mask is inherited through exec): schedulers signal whole process groups,
and only the supervisor may react. Each rank asks the kernel to KILL it when the supervisor dies.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from job.errors import ExitCode, JobError, RankCrashed, error_for
from job.host.launch_plan import launch_plan
from job.host.reaping import become_subreaper, end_descendants
from job.host.stacks import stacks
from job.host.topology import Topology
from job.rundir import RunDir

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SETTLE_SECONDS = 2.0  # from the first failed rank to the end of the others: time for their own error files
WELL = (ExitCode.DONE, ExitCode.STOPPED)
OUTER_RANKS = re.compile(
    r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(PMI|PET|OMPI_COMM_WORLD|MV2_COMM_WORLD)_\w+"
    r"|TORCHELASTIC_\w+"  # with its agent's store announced, no rank would open one
)


@contextlib.contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(
    module: str, arguments: list[str], run: RunDir, name: str, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start one of our programs by module name, its output going to `<name>.log`. Call from the main thread: the
    kernel's death signal fires when the starting *thread* ends."""
    return started((sys.executable, "-m", module, *arguments), run, name, environment)


def started(argv: Sequence[str], run: RunDir, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """As `start` does, by its whole command."""
    with _stop_signals_blocked(), run.log(name).open("ab") as log:
        return subprocess.Popen(
            argv,
            env={
                **inherited(),
                **environment,
                "SFT_JOB_PARENT_PID": str(os.getpid()),
                "SFT_JOB_RUN_DIR": str(run.path),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def inherited() -> dict[str, str]:
    """Our environment without what an outer launcher (torchrun, MPI, srun) says of ranks: ours are numbered here."""
    return {name: value for name, value in os.environ.items() if not OUTER_RANKS.fullmatch(name)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Ended:
    """How the ranks ended: 0 all done, 75 all stopped, else the first failing rank's cause.

    `from_outside`: a signal ended it; `seconds_ago`: it failed. Both tell causes from their echoes on other nodes.
    """

    code: int
    error: JobError | None
    from_outside: bool = False
    seconds_ago: float = 0.0


class Ranks:
    """The ranks of this node; none is left when the block ends."""

    def __init__(self, run: RunDir, topology: Topology, module: str = "job.train", port: int | None = None) -> None:
        """`port`: where the ranks meet on the leader's node; on one node a free one is found."""
        self._run, self._topology, self._module, self._port = run, topology, module, port
        self._processes: list[subprocess.Popen[bytes]] = []
        self._first_failures: dict[int, int] = {}  # rank: code, of those that were the first to be seen failing
        self._settles_at: float | None = None

    def __enter__(self) -> "Ranks":
        become_subreaper()
        port = self._port or free_port()
        try:
            for one in launch_plan(self._topology, self._run.path, port, self._module):
                self._processes.append(started(one.argv, self._run, f"rank-{one.rank}", one.environment))
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def alive(self) -> dict[int, int]:
        """Process ids by rank."""
        numbered = zip(self._topology.ranks, self._processes, strict=True)
        return {rank: process.pid for rank, process in numbered if process.poll() is None}

    def stacks(self) -> str:
        """Where they are, for people; takes a few seconds."""
        return stacks(self._run, self.alive)

    def kill(self) -> None:
        """End every rank and every descendant of one, and wait for them."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            process.wait()
        end_descendants(self._run)

    def ended(self) -> Ended | None:
        """None while all are well. Two seconds after the first failure the others are ended and its cause returned."""
        codes = [process.poll() for process in self._processes]
        if not self._first_failures:
            numbered = zip(self._topology.ranks, codes, strict=True)
            self._first_failures = {rank: code for rank, code in numbered if code not in (None, *WELL)}
            if self._first_failures:
                self.settle()
        left = any(code is None for code in codes)
        if left and (self._settles_at is None or time.monotonic() < self._settles_at):
            return None
        if self._settles_at is not None:
            self.kill()
        if self._first_failures:
            return self._failure()
        if left:  # another node's rank failed, and these had nothing to say to it
            return Ended(ExitCode.STOPPED, None)
        return Ended(max(code or 0 for code in codes), None)

    @property
    def failing(self) -> bool:
        """A rank failed; the others may be about to say why."""
        return bool(self._first_failures)

    def settle(self) -> None:
        """A rank failed, here or elsewhere: the others have two seconds to end by themselves."""
        if self._settles_at is None:
            self._settles_at = time.monotonic() + SETTLE_SECONDS

    @property
    def _failed_seconds_ago(self) -> float:
        return max(0.0, SETTLE_SECONDS - (self._settles_at - time.monotonic())) if self._settles_at else 0.0

    def _failure(self) -> Ended:
        """What the first failing rank died of; a peer's broken connection is only its echo.

        A signal from outside comes first: whoever it hits can write nothing, and its peers' errors follow from it. An
        abort may be an echo: communication libraries abort when a peer is lost. Then the oldest error file counts.
        """
        for rank, code in self._first_failures.items():
            if code < 0 and code != -signal.SIGABRT:
                hint = "; the kernel may have run out of memory" if code == -signal.SIGKILL else ""
                killed = RankCrashed(f"rank {rank} was ended by {_signal_name(-code)}{hint}")
                return Ended(ExitCode.CRASHED, killed, True, self._failed_seconds_ago)
        if oldest := min(self._error_files(), default=None):
            written_ns, rank, code, message = oldest
            error = error_for(code, message if self._topology.world_size == 1 else f"rank {rank}: {message}")
            return Ended(error.exit_code, error, seconds_ago=max(0.0, (time.time_ns() - written_ns) / 1e9))
        rank, code = next(iter(self._first_failures.items()))
        if code < 0:
            error = RankCrashed(f"rank {rank} was ended by {_signal_name(-code)}; see its log")
        else:
            error = error_for(code, f"rank {rank} left with code {code} and no message; see its log")
        return Ended(error.exit_code, error, seconds_ago=self._failed_seconds_ago)

    def _error_files(self) -> list[tuple[int, int, int, str]]:
        """(time, rank, exit code, message) of every rank that failed by its own account."""
        found = []
        for rank in self._topology.ranks:
            if (error := self._run.read_error(rank)) is not None and error[0] not in WELL:
                found.append((self._run.error(rank).stat().st_mtime_ns, rank, *error))
        return found


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"
