"""A rank for the launcher's tests: it imports nothing heavy and does what a file in its run folder says for it.

Each word of `do-<rank>` is one act, in order.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from job.errors import ConfigError, HardwareError, Stopped
from job.rundir import RunDir
from job.training.process import bind_to_parent, leave


def act(run: RunDir, rank: int, word: str) -> None:
    name, _, value = word.partition(":")
    if name == "sleep":
        time.sleep(float(value))
    elif name == "wait":  # for a file
        while not (run.path / value).exists():
            time.sleep(0.01)
    elif name == "mark":
        (run.path / f"{value}-{rank}").write_text(str(os.getpid()))
    elif name == "mask":
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        (run.path / f"mask-{rank}").write_text(" ".join(sorted(signal.Signals(number).name for number in blocked)))
    elif name == "environment":
        (run.path / "environment").write_text("\n".join(os.environ))
    elif name == "kill":
        os.kill(os.getpid(), getattr(signal, value))
    elif name == "exit":
        os._exit(int(value))
    elif name == "raise":
        raise {
            "config": ConfigError("a wrong field"),
            "hardware": HardwareError("no space left"),
            "stopped": Stopped("stopped on request"),
            "echo": RuntimeError("Connection closed by peer"),
        }[value]
    elif name == "child":  # one that takes no notice of anything, and one of its own
        code = "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
        subprocess.Popen([sys.executable, "-c", code], start_new_session=value == "detached")
        time.sleep(0.3)
    else:
        raise ValueError(word)


def main() -> None:
    bind_to_parent()
    run, rank = RunDir(Path(sys.argv[1])), int(os.environ.get("RANK", "0"))

    def story() -> None:
        for word in (run.path / f"do-{rank}").read_text().split():
            act(run, rank, word)

    code = leave(run, rank, story)
    os._exit(code)


if __name__ == "__main__":
    main()
