"""What the drill shows: phases down, signals across; on a terminal a table that fills, in a log a line for each."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from job.drill.experiment import Facts
from job.drill.plan import Blow, Case, Phase
from job.report.wording import counted, spoken_seconds

COLUMNS = {Blow.TERM: "TERM", Blow.USR1: "USR1", Blow.KILL: "KILL", Blow.KILL_RANK: "KILL a rank"}
LEGEND = "steps lost, seconds from the restart until steps were taken again; -: it did not have to resume"
LOG_CELLS = 100


@dataclass
class Board:
    """What is known so far; written by several threads."""

    cases: Sequence[Case]
    done: dict[Case, Facts] = field(default_factory=dict)
    running: dict[Case, tuple[str, float]] = field(default_factory=dict)  # doing what, and since when
    turn: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, case: Case, word: str) -> None:
        with self.turn:
            self.running[case] = word, time.monotonic()

    def end(self, case: Case, facts: Facts | None) -> None:
        with self.turn:
            self.running.pop(case, None)
            if facts is not None:
                self.done[case] = facts

    def __rich__(self) -> Table:
        with self.turn:
            return table(self.cases, self.done, self.running)


def table(cases: Sequence[Case], done: Mapping[Case, Facts], running: Mapping[Case, tuple[str, float]]) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    grid.add_column("killed in", no_wrap=True)
    for title in COLUMNS.values():
        grid.add_column(title, no_wrap=True, min_width=14)
    for phase in Phase:
        row = [Case(phase, blow) for blow in COLUMNS]
        if any(case in cases for case in row):
            grid.add_row(phase, *(_cell(case, case in cases, done.get(case), running.get(case)) for case in row))
    return grid


def _cell(case: Case, wanted: bool, facts: Facts | None, running: tuple[str, float] | None) -> Text:
    if facts is not None:
        mark = Text("pass", "green") if facts.passed else Text("FAIL", "bold red")
        return mark.append(f" {figures(facts)}", "default" if facts.passed else "red")
    if running is not None:
        return Text(f"{running[0]} {spoken_seconds(time.monotonic() - running[1])}", "cyan")
    if not case.applies:
        return Text("n/a", "dim")
    return Text("waits" if wanted else "", "dim")


def figures(facts: Facts) -> str:
    """` 2   4.1s`: steps lost, seconds until it went on."""
    lost = "-" if facts.lost_steps is None else str(facts.lost_steps)
    return f"{lost:>2}" if facts.resume_seconds is None else f"{lost:>2} {facts.resume_seconds:>5.1f}s"


def line(facts: Facts) -> str:
    """One experiment in a log."""
    codes = counted(len(facts.codes), "start")
    codes += f" ({', '.join(map(str, facts.codes))})"
    told = f"{begun(facts.case)}{'pass' if facts.passed else 'FAIL'}  {codes}"
    if facts.resumed_step is not None:
        told += f", resumed from step {facts.resumed_step}, lost {facts.lost_steps} of at most {facts.bound_steps}"
    if facts.resume_seconds is not None:
        told += f", going again after {facts.resume_seconds:.1f} s"
    return told


def begun(case: Case) -> str:
    """How a line about an experiment begins."""
    return f"{case.phase:<14}{COLUMNS[case.blow]:<12}"


@contextlib.contextmanager
def working(console: Console, text: str) -> Iterator[None]:
    """What takes a while: a line in a log, a line that moves on a terminal."""
    if live(console):
        with console.status(Text(text)):
            yield
        return
    plain(console, text)
    yield


def live(console: Console) -> bool:
    return console.is_terminal and not console.is_dumb_terminal


@contextlib.contextmanager
def shown(console: Console, board: Board) -> Iterator[None]:
    """The table while the block runs: live where a terminal can redraw it; it stays in any case."""
    if live(console):
        with Live(board, console=console, refresh_per_second=4, redirect_stdout=False, redirect_stderr=False):
            yield
        return
    try:
        yield
    finally:
        if board.done:
            console.print()
            console.print(board, width=LOG_CELLS, crop=False)


def finished(console: Console, facts: Facts) -> None:
    """What is worth a line once an experiment is over; where it failed, why."""
    if not live(console) or not facts.passed:
        plain(console, line(facts), "" if facts.passed else "red")
    for problem in facts.problems:
        plain(console, f"  {problem}", "red")
    for text in facts.said:
        plain(console, f"    {text}", "dim")


def plain(console: Console, text: str, style: str = "") -> None:
    """A line as it is, whatever the width."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
