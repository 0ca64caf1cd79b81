"""The warm interpreter of the matrix: it has imported all that a rank imports, and forks the ranks of each leg.

Started as `python -m tests.matrix.forge`; a JSON line on standard input asks for a leg, one on standard output says how
its ranks ended. It never computes, and has no threads when it forks.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

FAILED = 70
SETTLE_SECONDS = 2.0


def warm_up() -> None:
    import deepspeed  # noqa: F401
    import torch

    import job.train
    import job.training.shards  # noqa: F401

    torch.set_num_threads(1)
    assert threading.active_count() == 1, threading.enumerate()


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # libraries print
    warm_up()
    for line in sys.stdin:
        asked = json.loads(line)
        codes = leg(asked["folder"], asked["environments"], asked["seconds"], asked["memory_bytes"])
        os.write(answers, (json.dumps(codes) + "\n").encode())


def leg(folder: str, environments: list[dict[str, str]], seconds: float, memory_bytes: int | None) -> list[int]:
    """Exit codes by rank; when one fails, or the time is over, the others are ended. `memory_bytes`: of each rank."""
    forge = os.getpid()
    ranks = []
    for environment in environments:
        if (pid := os.fork()) == 0:
            become_rank(Path(folder), environment, forge, memory_bytes)
        ranks.append(pid)
    codes: dict[int, int] = {}
    until = time.monotonic() + seconds
    while len(codes) < len(ranks) and time.monotonic() < until:
        for pid in set(ranks) - codes.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
                if codes[pid] not in (0, 75):
                    until = min(until, time.monotonic() + SETTLE_SECONDS)
        time.sleep(0.005)
    for pid in set(ranks) - codes.keys():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return [codes[pid] for pid in ranks]


def become_rank(folder: Path, environment: dict[str, str], forge: int, memory_bytes: int | None) -> None:
    """`python -m job.train FOLDER`, its imports done already. Never returns."""
    code = FAILED
    try:
        from job import train
        from job.training import steps
        from job.training.process import die_with

        die_with(forge)
        os.environ.update(environment)
        if memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        rank = environment.get("RANK", "0")
        log = os.open(folder / f"rank-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if rank == "0":
            steps.shares = noting(steps.shares, folder / "rows.jsonl")
        sys.argv = ["train.py", str(folder)]
        train.main()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def noting(shares: Any, file: Path) -> Any:
    """The row numbers of each global batch, as rank 0 lays them out."""

    def noted(rows: Any, ids: Any, at: Any) -> Any:
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(list(map(int, ids))) + "\n")
        return shares(rows, ids, at)

    return noted


if __name__ == "__main__":
    main()
