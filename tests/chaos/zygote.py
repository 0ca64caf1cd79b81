"""The warm interpreter: has imported all that a run imports, and forks a supervisor for each request.

Started by tests.chaos.warm as `python -m tests.chaos.zygote DESCRIPTOR`, a socket to whoever asks. It must never start
a thread or compute with torch: a fork takes along one thread only.
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
from typing import Any

from tests.chaos.environ import take_on
from tests.chaos.nursery import MESSAGE_BYTES, PR_SET_CHILD_SUBREAPER, Nursery, Started, prctl, redirect
from tests.chaos.observing import SUPERVISOR, Observer, Plan

NEVER_IMPORTED = ("wandb", "bitsandbytes", "deepspeed")  # as job.training.unused leaves them out


def warm_up() -> None:
    for name in NEVER_IMPORTED:
        sys.modules[name] = None  # type: ignore[assignment]
    import boto3  # noqa: F401
    import torch

    import job.cli
    import job.prepare
    import job.report.progress
    import job.run
    import job.train  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[1]))
    warm_up()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()
    line.send(b"{}")
    either = selectors.DefaultSelector()
    either.register(line, selectors.EVENT_READ)
    either.register(ended, selectors.EVENT_READ)
    living: set[int] = set()
    while True:
        for key, _ in either.select():
            if key.fileobj is ended:
                ended.recv(1024)
                reap(line, living)
                continue
            if not (asked := line.recv(MESSAGE_BYTES)):
                end(living)
            request = json.loads(asked)
            if "import" in request:
                import_all(request["import"])
                line.send(b"{}")
                continue
            if (pid := os.fork()) == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                either.close()
                for descriptor in (line, ended, wake):
                    descriptor.close()
                supervise(request)
            living.add(pid)
            line.send(json.dumps({"started": pid}).encode())


def import_all(names: list[str]) -> None:
    """What the first run imported while it ran."""
    for name in names:
        try:
            __import__(name)
        except Exception as error:
            print(f"{name}: {error}", file=sys.stderr)
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()


def end(living: set[int]) -> None:
    """Whoever asked is gone, and with it the interest in what still runs."""
    for pid in living:
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


def reap(line: socket.socket, living: set[int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        living.discard(pid)
        with contextlib.suppress(OSError):  # who asked may be gone
            line.send(json.dumps({"ended": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


def supervise(request: dict[str, Any]) -> None:
    """`python -m job ARGUMENTS`, its imports done already. Never returns."""
    code = 70
    try:
        os.setsid()
        take_on(request["environment"])
        os.chdir(request["folder"])
        out = os.open(request["stdout"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        redirect(os.open(os.devnull, os.O_RDONLY), out, log)
        plan = Plan.load(request["plan"])
        nursery = Nursery(plan)
        start_programs_by(nursery)
        seen = Observer(plan, SUPERVISOR, lambda name: {SUPERVISOR: os.getpid(), **nursery.processes}.get(name))
        observe_stores(seen)
        seen.watch()
        from job.cli import main as story

        sys.argv = ["job", *request["arguments"]]
        story()
        code = 0
        seen.tell_modules()
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        threading._shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_programs_by(nursery: Nursery) -> None:
    import subprocess
    from types import SimpleNamespace

    from job.host import launcher

    Started.nursery = nursery
    names = {"Popen": Started, "DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
    launcher.subprocess = SimpleNamespace(**names)  # type: ignore[assignment]


def observe_stores(seen: Observer) -> None:
    from job import run as story
    from tests.chaos.hooked import hooked

    run = story.run

    def observed(*arguments: Any, **options: Any) -> None:
        run(*arguments, **options, opener=lambda config, stopped: hooked(story.run_store(config, stopped), seen))

    story.run = observed


if __name__ == "__main__":
    main()
