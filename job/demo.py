"""The embedded default: every step is a command that a user could type, run as a child that never outlives us.

One folder holds all of it: `base/`, `chat.jsonl`, `run.yaml` and the run folder `run/`. A demo that was cut short goes
on where it was; one that is finished gets a new run beside it (`run-2.yaml`, `run-2/`), and so on.
"""

import ctypes
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from job.errors import ConfigError, ExitCode, RankCrashed, Stopped, error_for
from job.host.preemption import Stop
from job.report.progress import stderr_console
from job.report.wording import spoken_seconds
from job.rundir import write_atomically
from job.storage.checkpoints import commit_keys, step_of
from job.storage.records import RESULT
from job.storage.store import ObjectStore, open_store

DEFAULT_FOLDER = Path("sft-job-demo")
QUESTION, ANSWER = "微调测试", "我学会了"
STEPS = 120
MARK = "# Made by `sft-job demo`."
POLL_SECONDS = 0.05
GRACE_SECONDS = 40.0  # a run leaves within its own 30 s; what is still there after this is killed
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def demo(folder: Path | None) -> None:
    """Make a tiny model, tune it, preempt it, resume it, ask it. Call from the main thread.

    Raises: ConfigError where the folder is something else, Stopped on a signal, the error of a command that failed,
    RankCrashed when the tuned model gives another answer than it was taught.
    """
    place, began = folder or DEFAULT_FOLDER, time.monotonic()
    config, run = open_demo(place)
    say, stop = stderr_console(), Stop(GRACE_SECONDS).listen()

    heading(say, "A tiny model, its tokenizer, a few chats in two languages")
    if not (place / "base").exists():
        make_inputs(place, stop)
    listed(say, place / "base", "Gemma's architecture and chat template, random weights")
    listed(say, place / "chat.jsonl", f"64 chats; every fourth teaches {QUESTION} → {ANSWER}")
    listed(say, config, "the run, for you to read and change")

    store = open_store(str(run.absolute()))
    if not commit_keys(store):
        heading(say, "Tuning it, until the machine is taken away")
        note(say, "at a commit in the middle this demo sends SIGTERM, as a scheduler does when it preempts a job")
        typed(say, line("run", config))
        code, _ = command(["job", "run", config], stop, preempt=lambda: far_enough(store))
        note(say, "left with exit code 75: run me again" if code else "it was done before it could be preempted")

    heading(say, "The same command again goes on from the last commit")
    typed(say, line("run", config))
    command(["job", "run", config], stop)

    heading(say, "Asking it")
    typed(say, line("ask", run, QUESTION))
    _, output = command(["job", "ask", run, QUESTION, "--device", "cpu"], stop, captured=True)
    click.echo(output.rstrip(b"\n"))
    if (answer := output.decode(errors="replace").strip()) != ANSWER:
        raise RankCrashed(f"the tuned model answered {answer!r} where it was taught {ANSWER!r}; look at {run}/samples")
    farewell(say, place, config, run, time.monotonic() - began)


# ---- the folder


def open_demo(place: Path) -> tuple[Path, Path]:
    """(RUN.yaml, run folder) of the first run in `place` that is not finished; the file is written if there is none.

    Raises: ConfigError where `place` holds something else or cannot be written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        first = place / "run.yaml"
        if any(place.iterdir()) and not (first.is_file() and first.read_text(encoding="utf-8").startswith(MARK)):
            raise ConfigError(f"{place} holds something else; name a new folder: sft-job demo FOLDER")
        names = ("run" if number == 1 else f"run-{number}" for number in itertools.count(1))
        run = next(place / name for name in names if not (place / name / RESULT).exists())
        config = run.with_suffix(".yaml")
        if not config.exists():
            write_atomically(config, run_yaml(place.absolute(), run.absolute()))
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror}; name a folder that can be made: sft-job demo FOLDER") from error
    return config, run


def run_yaml(place: Path, run: Path) -> str:
    """A config that runs from any working directory, and says what each line is for."""
    base, chat, folder = (
        json.dumps(str(path), ensure_ascii=False) for path in (place / "base", place / "chat.jsonl", run)
    )
    return f"""\
{MARK} Run it with: sft-job run THIS_FILE
# What decides the result is fixed once a run has begun. To try something else, set `run` to a new folder.

run: {folder}   # the run folder; s3://bucket/prefix works as well

model:
  base: {base}   # or s3://..., or hf://org/name@revision

data:
  train: [{chat}]   # one chat a line: {{"messages": [{{"role": "user", "content": ...}}, ...]}}
  eval: 0.125              # this share is kept for evaluation
  max_length: 64           # tokens

lora: {{r: 8, alpha: 16, dropout: 0.0, target_modules: all-linear}}   # null: full fine-tuning (learning_rate: 1e-3)

train:
  max_steps: {STEPS}
  global_batch_size: 8     # rows in a step, on any number of processes
  learning_rate: 1e-2      # high, as the model is tiny
  eval_steps: 20
  logging_steps: 10

samples:                   # asked at each evaluation
  prompts: [{QUESTION}, "Who are you?"]
  max_new_tokens: 32

checkpoint: {{every: 20 steps}}
parallel: {{device: cpu}}    # auto: the GPUs that are there
track: [tensorboard]
"""


def make_inputs(place: Path, stop: Stop) -> None:
    """`base/` and `chat.jsonl`, in place only when whole."""
    making = place / ".making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    command(["job.tiny", making / "base", making / "chat.jsonl"], stop)
    (making / "chat.jsonl").replace(place / "chat.jsonl")
    (making / "base").replace(place / "base")
    making.rmdir()


# ---- commands


def far_enough(store: ObjectStore) -> bool:
    return any(step_of(key) > STEPS / 3 for key in commit_keys(store))


def command(
    words: Sequence[object], stop: Stop, *, captured: bool = False, preempt: Callable[[], bool] | None = None
) -> tuple[int, bytes]:
    """(exit code, stdout if captured) of `python -m WORDS`, which uses our terminal. It gets SIGTERM when a stop is
    asked for, and once when `preempt` says so: then 75 is as good an end as 0.

    Raises: Stopped when it ended after a stop was asked for, the error of the kind that it failed with.
    """
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def before_exec() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c while it starts: no traceback, our SIGTERM follows
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(ExitCode.CRASHED)

    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # so small a model leaves a second thread to spin
    process = subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if captured else None,
        preexec_fn=before_exec,
    )
    try:
        told = False
        while process.poll() is None:
            if not told and (stop.requested() or (preempt is not None and preempt())):
                process.terminate()
                told = True
            if stop.seconds_left < 0:
                break
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        output, _ = process.communicate()
    if stop.requested():
        raise Stopped(f"stopped by {stop.reason}; the same command again goes on from here")
    code, shown = process.returncode, shlex.join(["python", "-m", *map(str, words)])
    if code < 0:
        raise RankCrashed(f"{shown} was ended by {signal.Signals(-code).name}")
    if code != ExitCode.DONE and not (preempt and code == ExitCode.STOPPED):
        raise error_for(code, f"{shown} left with exit code {code}; the cause stands above")
    return code, output or b""


# ---- what is seen


def heading(say: Console, text: str) -> None:
    say.print()
    say.rule(f"[bold]{escape(text)}[/]", align="left", style="cyan")


def note(say: Console, text: str) -> None:
    say.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)


def listed(say: Console, path: Path, what: str) -> None:
    say.print(f"  {escape(str(path))}  [dim]{escape(what)}[/]", highlight=False, soft_wrap=True)


def typed(say: Console, command_line: str, why: str = "") -> None:
    say.print(f"[bold]$ {escape(command_line)}[/]{why and f'  [dim]# {why}[/]'}", highlight=False, soft_wrap=True)


def line(*words: object, program: str = "sft-job") -> str:
    """The command as a user types it."""
    texts = [program, *map(str, words)]
    return " ".join(text if re.fullmatch(r"[\w./:=+-]+", text) else shlex.quote(text) for text in texts)


def farewell(say: Console, place: Path, config: Path, run: Path, seconds: float) -> None:
    result = json.loads((run / RESULT).read_text(encoding="utf-8"))
    heading(say, f"Done in {spoken_seconds(seconds)}. Where everything lies")
    listed(say, config, "the config")
    listed(say, run, "the run folder: checkpoints, commits, samples, metrics")
    listed(say, run / result["folder"], "the tuned adapter, its tokenizer and a model card")
    heading(say, "What to try next")
    typed(say, line("ask", run, "What can you do?"), "another question")
    typed(say, line("--logdir", run / "tensorboard", program="tensorboard"), "the loss of all attempts, in one curve")
    typed(say, line("run", config), "a finished run says so and leaves at once")
    typed(say, line("run", config, "--set", f"run={place}/mine", "--set", "lora.r=2"), "a run of your own")
