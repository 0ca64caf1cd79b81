"""Starts our programs by a fork of the warm image instead of an exec of a new interpreter, and otherwise as Popen does.

A nursery is forked before its supervisor has threads, and forks for it: a process with threads cannot safely be forked.
The new process becomes the supervisor's own child by way of a parent that ends at once: the supervisor is a subreaper.
"""

import ctypes
import faulthandler
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from tests.chaos.environ import take_on
from tests.chaos.observing import SUPERVISOR, Observer, Plan

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <sys/prctl.h>
MESSAGE_BYTES = 1 << 17


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


class Nursery:
    """The supervisor's end."""

    def __init__(self, plan: Plan) -> None:
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.processes: dict[str, int] = {}  # name, as its log's: process id
        supervisor = os.getpid()
        if os.fork() == 0:
            self._line.close()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(0)
            serve(theirs, supervisor, plan)
        theirs.close()

    def start(self, module: str, arguments: list[str], environment: dict[str, str], log: str) -> int:
        mask = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]
        request = {"module": module, "arguments": arguments, "environment": environment, "log": log, "mask": mask}
        self._line.send(json.dumps(request).encode())
        pid = int(self._line.recv(MESSAGE_BYTES))
        self.processes[Path(log).stem] = pid
        return pid


class Started(subprocess.Popen[bytes]):
    """Popen's own poll, wait and kill, for a child that came into being in another way."""

    nursery: Nursery

    def __init__(self, args: Sequence[str], *, env: dict[str, str], stdin: int, stdout: IO[bytes], stderr: int) -> None:
        assert [*args[:2]] == [sys.executable, "-m"] and stdin == subprocess.DEVNULL and stderr == subprocess.STDOUT
        self.args, self.returncode, self._child_created = args, None, True
        self.stdin = self.stdout = self.stderr = None
        self._waitpid_lock, self._sigint_wait_secs = threading.Lock(), 0.25
        self.pid = self.nursery.start(args[2], [*args[3:]], env, stdout.name)


def serve(line: socket.socket, supervisor: int, plan: Plan) -> None:
    """The nursery itself; ends with its supervisor."""
    while request := line.recv(MESSAGE_BYTES):
        passing = os.fork()
        if passing == 0:
            parent = os.getpid()
            if os.fork() != 0:
                os._exit(0)
            while (above := os.getppid()) != supervisor:
                if above != parent:
                    os._exit(1)  # the supervisor is gone already
            become(json.loads(request), plan, line, supervisor)
        os.waitpid(passing, 0)
    os._exit(0)


def become(request: dict[str, Any], plan: Plan, line: socket.socket, supervisor: int) -> None:
    """What exec would have made of this process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, request["mask"])
    prctl(PR_SET_PDEATHSIG, 0)
    take_on(request["environment"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line.send(str(os.getpid()).encode())
    redirect(os.open(os.devnull, os.O_RDONLY), log, log)
    line.close()
    process = Path(request["log"]).stem
    pids = {process: os.getpid(), SUPERVISOR: supervisor}
    run_program(request["module"], request["arguments"], Observer(plan, process, pids.get))


def redirect(stdin: int, stdout: int, stderr: int) -> None:
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115


def run_program(module: str, arguments: list[str], seen: Observer) -> None:
    """`python -m MODULE ARGUMENTS`, its imports done already. Never returns."""
    code = 70
    try:
        sys.argv = [f"{module}.py", *arguments]
        _observe_events(seen)
        seen.watch()
        if module == "job.train":
            _train(seen)
        elif module == "job.prepare":
            from job.prepare import main

            code = main(arguments)
            seen.tell_modules()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _observe_events(seen: Observer) -> None:
    from job.rundir import EventWriter

    write = EventWriter.write

    def observed(self: EventWriter, kind: str, **fields: Any) -> None:
        write(self, kind, **fields)
        if seen.process == "rank-0" and kind == "step":
            seen.tell(kind=kind, step=fields["step"], pid=os.getpid())
        seen.saw(f"event {kind} {fields.get('step', '')}")

    EventWriter.write = observed  # type: ignore[method-assign]


def _train(seen: Observer) -> None:
    """The lines that job.train runs before its imports, and its story."""
    import job.train
    from job.rundir import RunDir, Spec
    from job.training import steps
    from job.training.process import bind_to_parent, show_stacks_when_asked

    bind_to_parent()
    run, rank = RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0"))
    show_stacks_when_asked(run, rank)
    if rank == 0:
        spec = Spec.read(run)
        seen.tell(kind="launch", attempt=spec.attempt, resume=spec.resume_step or 0, pid=os.getpid())
    share = steps.shares

    def observed(rows: Any, ids: Any, at: Any) -> Any:
        if at.rank == 0:
            seen.tell(kind="rows", ids=list(ids), pid=os.getpid())
        return share(rows, ids, at)

    def leaving(*arguments: Any) -> int:
        code = leave(*arguments)
        seen.tell_modules()
        return code

    leave, job.train.leave = job.train.leave, leaving
    steps.shares = observed
    try:
        job.train.main()
    finally:
        faulthandler.unregister(signal.SIGQUIT)
