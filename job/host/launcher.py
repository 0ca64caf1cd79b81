"""Starts the ranks of this node, notices the first that fails, and leaves none behind.

Ranks start with the stop signals blocked (the mask is inherited through exec): schedulers signal whole process groups,
and only the supervisor may react. Each rank asks the kernel to KILL it when the supervisor dies.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from job.errors import ExitCode, JobError, RankCrashed, error_for
from job.host.launch_plan import rank_environment
from job.host.topology import Topology
from job.rundir import RunDir

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SETTLE_SECONDS = 2.0  # from the first failed rank to the end of the others: time for their own error files
REAP_SECONDS = 10.0  # a process that hangs in the kernel outlives every KILL: it must not keep this one
REAP_PAUSE_SECONDS = 0.01
WELL = (ExitCode.DONE, ExitCode.STOPPED)
PROC = Path("/proc")
OUTER_RANKS = re.compile(
    r"(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT)|(PMI|PET|OMPI_COMM_WORLD|MV2_COMM_WORLD)_\w+"
)
PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>


def become_subreaper() -> None:
    """Orphaned descendants become our children, so that they can be ended and waited for."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1)


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
    with _stop_signals_blocked(), run.log(name).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
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
    """How the ranks ended: 0 all done, 75 all stopped, else the first failing rank's cause."""

    code: int
    error: JobError | None


class Ranks:
    """The ranks of this node; none is left when the block ends."""

    def __init__(self, run: RunDir, topology: Topology, module: str = "job.train", port: int | None = None) -> None:
        """`port`: where the ranks meet on the leader's node; on one node a free one is found."""
        self._run, self._topology, self._module, self._port = run, topology, module, port
        self._processes: list[subprocess.Popen[bytes]] = []
        self._first_failures: dict[int, int] = {}  # rank: code, of those that were the first to be seen failing
        self._failed_at = 0.0

    def __enter__(self) -> "Ranks":
        become_subreaper()
        port = self._port or free_port()
        try:
            for rank in self._topology.ranks:
                environment = rank_environment(self._topology, rank, port)
                self._processes.append(
                    start(self._module, [str(self._run.path)], self._run, f"rank-{rank}", environment)
                )
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
            self._failed_at = time.monotonic()
        if self._first_failures:
            if any(code is None for code in codes) and time.monotonic() - self._failed_at < SETTLE_SECONDS:
                return None
            self.kill()
            error = self._cause()
            return Ended(int(error.exit_code), error)
        if any(code is None for code in codes):
            return None
        return Ended(max(code or 0 for code in codes), None)

    def _cause(self) -> JobError:
        """What the first failing rank died of; a peer's broken connection is only its echo.

        A signal from outside comes first: whoever it hits can write nothing, and its peers' errors follow from it. An
        abort may be an echo: communication libraries abort when a peer is lost. Then the oldest error file counts.
        """
        for rank, code in self._first_failures.items():
            if code < 0 and code != -signal.SIGABRT:
                hint = "; the kernel may have run out of memory" if code == -signal.SIGKILL else ""
                return RankCrashed(f"rank {rank} was ended by {_signal_name(-code)}{hint}")
        if oldest := min(self._error_files(), default=None):
            _, rank, code, message = oldest
            return error_for(code, message if self._topology.world_size == 1 else f"rank {rank}: {message}")
        rank, code = next(iter(self._first_failures.items()))
        if code < 0:
            return RankCrashed(f"rank {rank} was ended by {_signal_name(-code)}; see its log")
        return error_for(code, f"rank {rank} left with code {code} and no message; see its log")

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


def end_descendants(run: RunDir) -> None:
    """KILL and reap whatever the ended ranks left behind (data-loader workers, compilers). As subreaper this process
    inherits them; they are known by the run folder in their environment: a tracker's service is not theirs to end."""
    mark = f"SFT_JOB_RUN_DIR={run.path}".encode()
    until, ended = time.monotonic() + REAP_SECONDS, set[int]()
    while time.monotonic() < until:
        left = {pid for pid in _other_processes() if mark in _environment(pid)}
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended = {pid for pid in ended | left if not _reaped(pid)}
        if not left and not ended:
            return
        time.sleep(REAP_PAUSE_SECONDS)


def _reaped(pid: int) -> bool:
    """A dead one whose own parent is dying too is still to be handed over to us."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not (PROC / str(pid)).exists()


def _other_processes() -> list[int]:
    numbers = [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.is_dir() else []
    return [pid for pid in numbers if pid != os.getpid()]


def _environment(pid: int) -> list[bytes]:
    """Empty for a process of somebody else's, and for a dead one."""
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []
