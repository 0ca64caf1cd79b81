"""Starts the ranks of this node, notices the first that fails, and leaves none behind.

Ranks start with the stop signals blocked (the mask is inherited through exec): schedulers signal whole process groups,
and only the supervisor may react. Each rank asks the kernel to KILL it when the supervisor dies.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from job.errors import JobError, RankCrashed, error_for
from job.host.topology import Topology
from job.rundir import RunDir

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SETTLE_SECONDS = 2.0  # from the first failed rank to the end of the others: time for their own error files
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
            env={**os.environ, **environment, "SFT_JOB_PARENT_PID": str(os.getpid()), "SFT_JOB_RUN_DIR": str(run.path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def rank_environment(topology: Topology, rank: int, port: int) -> dict[str, str]:
    """torchrun's contract, which accelerate and DeepSpeed read."""
    threads = max(1, (os.cpu_count() or 1) // topology.world_size)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(topology.world_size),
        "LOCAL_WORLD_SIZE": str(topology.world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",  # everything was pulled before: a rank that calls a hub is a bug
        "SFT_JOB_DEVICE": topology.device,
        "SFT_JOB_STRATEGY": topology.strategy,
    }


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

    def __init__(self, run: RunDir, topology: Topology) -> None:
        self._run, self._topology = run, topology
        self._processes: list[subprocess.Popen[bytes]] = []
        self._first_failure: tuple[int, float] | None = None

    def __enter__(self) -> "Ranks":
        become_subreaper()
        port = free_port()
        for rank in range(self._topology.world_size):
            environment = rank_environment(self._topology, rank, port)
            self._processes.append(start("job.train", [str(self._run.path)], self._run, f"rank-{rank}", environment))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

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
        if self._first_failure is None:
            failed = [rank for rank, code in enumerate(codes) if code not in (None, 0, 75)]
            if failed:
                self._first_failure = (failed[0], time.monotonic())
        if self._first_failure is not None:
            rank, since = self._first_failure
            if any(code is None for code in codes) and time.monotonic() - since < SETTLE_SECONDS:
                return None
            self.kill()
            return Ended(*self._cause(rank))
        if any(code is None for code in codes):
            return None
        return Ended(max(code or 0 for code in codes), None)

    def _cause(self, first: int) -> tuple[int, JobError]:
        """The first rank that wrote an error file names the cause: a peer's broken connection is only its echo."""
        left = [
            (self._run.error(rank).stat().st_mtime_ns, rank)
            for rank in range(len(self._processes))
            if self._run.error(rank).exists()
        ]
        killed = self._processes[first].returncode
        if killed is not None and killed < 0:
            name = signal.Signals(-killed).name
            hint = "; the kernel may have run out of memory" if name == "SIGKILL" else ""
            error: JobError = RankCrashed(f"rank {first} was ended by {name}{hint}")
            return int(error.exit_code), error
        if left:
            rank = min(left)[1]
            code, message = self._run.read_error(rank) or (70, "no message")
            text = message if len(self._processes) == 1 else f"rank {rank}: {message}"
            error = error_for(code, text)
            return int(error.exit_code), error
        error = RankCrashed(f"rank {first} left with code {killed} and no message; see its log")
        return int(error.exit_code), error


def end_descendants(run: RunDir) -> None:
    """KILL and reap whatever the ended ranks left behind (data-loader workers, compilers). As subreaper this process
    inherits them; they are known by the run folder in their environment: a tracker's service is not theirs to end."""
    mark = f"SFT_JOB_RUN_DIR={run.path}".encode()
    for _ in range(100):
        orphans = [pid for pid in _children() if mark in _environment(pid)]
        if not orphans:
            return
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in orphans:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    lists = Path("/proc/self/task").glob("*/children")  # absent without CONFIG_PROC_CHILDREN
    return [int(pid) for children in lists for pid in children.read_text(encoding="ascii").split()]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
