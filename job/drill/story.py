"""THE STORY of a drill: make a tiny job, leave it alone once, then kill it everywhere and see that nothing is lost.

Lines and the table go to stderr; the report, where it is asked for with `-`, to stdout.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

import click

from job.drill.experiment import Facts, experiment, leave_alone
from job.drill.ground import Ground, ground
from job.drill.outcome import Outcome
from job.drill.plan import CHECKPOINT_STEPS, STEPS, Case, chosen
from job.drill.table import LEGEND, Board, begun, finished, live, plain, shown, working
from job.errors import ConfigError, RankCrashed, Stopped
from job.host.preemption import Stop
from job.machine import node_name
from job.report.progress import stderr_console
from job.report.wording import counted, spoken_seconds
from job.rundir import write_atomically
from job.versions import versions

SIDE_BY_SIDE = 2
STOP_SECONDS = 30.0  # what is left of a drill is killed, and its folders are deleted


def drill(where: str | None, quick: bool, only: Sequence[str], report: str | None) -> None:
    """Prove that runs survive on the store at `where` and on this machine. Call from the main thread.

    Raises: RankCrashed naming the first experiment that failed, StorageError where the store fails, ConfigError,
    HardwareError; Stopped on a signal, when nothing is left running and the folders are gone.
    """
    cases, began = chosen(quick, only), time.monotonic()
    refuse_no_place_for(report)
    stop, console = Stop(STOP_SECONDS).listen(), stderr_console()

    def say(text: str, style: str = "") -> None:
        plain(console, text, style)

    with ground(where, stop, say) as at:
        say(f"{counted(len(cases), 'experiment')} in {at.uri}, which is deleted at the end")
        with working(console, "making a tiny model and its rows, and storing them there"):
            at.make_inputs()
        with working(console, "running the tiny job once, left alone: what the others are compared with"):
            reference = leave_alone(at.place("reference"), stop, say)
        say(f"left alone: {STEPS} steps, a checkpoint every {CHECKPOINT_STEPS}, {counted(reference.commits, 'commit')}")
        board = Board(cases)

        def doing(case: Case, word: str, text: str) -> None:
            board.begin(case, word)
            if not live(console):
                say(f"{begun(case)}{text}")

        with shown(console, board):
            for facts in all_of_them(cases, at, reference, board, doing):
                finished(console, facts)
    done = [board.done[case] for case in cases]
    say(LEGEND, "dim")
    if report is not None:
        write_report(report, described(at.uri, done, time.monotonic() - began))
    if bad := [facts for facts in done if not facts.passed]:
        more = f"; {len(bad) - 1} more of {len(done)} failed" if len(bad) > 1 else f"; the other {len(done) - 1} passed"
        raise RankCrashed(f"killed by {bad[0].case.blow} in {bad[0].case.phase}: {bad[0].problems[0]}{more}")
    spent = spoken_seconds(time.monotonic() - began)
    say(f"all {len(done)} experiments passed in {spent}: runs survive here, bit by bit", "green")


def all_of_them(
    cases: Sequence[Case], at: Ground, reference: Outcome, board: Board, doing: Callable[[Case, str, str], None]
) -> Iterator[Facts]:
    """As they end. Raises: what the first raises that the place is to blame for; the others are ended then."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1

    def one(case: Case) -> Facts:
        if at.stop.requested():
            raise Stopped(f"stopped by {at.stop.reason}")
        facts = None
        try:
            facts = experiment(case, at.place(case.name.replace(":", "-")), reference, at.stop, partial(doing, case))
            return facts
        finally:
            board.end(case, facts)

    # The threads live until all is over: a program ends with the thread that started it.
    with ThreadPoolExecutor(min(SIDE_BY_SIDE, usable)) as pool:
        futures = [pool.submit(one, case) for case in cases]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException as error:
            at.stop.request(str(error))
            pool.shutdown(cancel_futures=True)
            raise


def refuse_no_place_for(report: str | None) -> None:
    """Before minutes are spent. Raises: ConfigError."""
    if report in (None, "-"):
        return
    path = Path(str(report))
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigError(f"--json {path}: no file can be written there; name a file in a folder that exists, or -")


def write_report(report: str, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if report == "-":
        click.echo(text)
        return
    try:
        write_atomically(Path(report), text + "\n")
    except OSError as error:
        raise ConfigError(f"--json {report}: {error.strerror}; name a file that can be written, or -") from error


def described(uri: str, done: Sequence[Facts], seconds: float) -> dict[str, Any]:
    """The report. `seconds` are those of all of it."""
    return {
        "passed": all(facts.passed for facts in done),
        "store": uri,
        "host": node_name(),
        "versions": versions(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
        "steps": STEPS,
        "checkpoint_every_steps": CHECKPOINT_STEPS,
        "experiments": [facts.to_dict() for facts in done],
    }
