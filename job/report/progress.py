"""Progress as it is seen: one live bar on a terminal, plain lines in a log. Both get the same calls."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column

from job.report.pace import Pace
from job.report.wording import numbers, spoken_bytes, spoken_pace, spoken_seconds, spoken_value, step_name

Clock = Callable[[], float]

_LOG_WIDTH = 140
_LINE_SECONDS = 10.0  # a long piece of work says where it is at least this often in a log
_LINE_SHARE = 0.1  # ... and at every tenth, if that is not within the same second
_LINE_GAP_SECONDS = 1.0


class Display(Protocol):
    """Where progress goes."""

    @property
    def width(self) -> int:
        """Cells in a line."""

    def say(self, text: str, style: str = "") -> None:
        """One line that stays."""

    def work(self, description: str, done: float, total: float | None, figures: str) -> None:
        """Work outside training; `figures` says how far in words. The last call has done >= total."""

    def step(self, event: Mapping[str, Any], steps: int | None, pace: Pace) -> None:
        """One optimizer step."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Unbreakable:
    """A stream whose terminal may go away (a closed connection, a full disk under a log) without ending a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stderr_console() -> Console:
    """The console that a run reports on; stdout stays free for results."""
    return Console(file=cast(TextIO, Unbreakable(sys.stderr)))


def display_for(console: Console, clock: Clock = time.monotonic) -> Display:
    """The live display where there is a terminal that can redraw a line, else plain lines."""
    live = console.is_terminal and not console.is_dumb_terminal
    return LiveDisplay(console) if live else PlainDisplay(console, clock)


class PlainDisplay:
    """One line for each thing worth a line in a log file: no colours, no wrapping."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, float]] = {}  # description -> (time, done) of its last line

    @property
    def width(self) -> int:
        return _LOG_WIDTH

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def work(self, description: str, done: float, total: float | None, figures: str) -> None:
        now = self._clock()
        with self._lock:
            said_at, said_done = self._last.setdefault(description, (now, 0.0))
            waited = now - said_at
            tenth = total is not None and done - said_done >= _LINE_SHARE * total
            due = waited >= _LINE_SECONDS or (tenth and waited >= _LINE_GAP_SECONDS)
            if total is not None and done >= total:
                del self._last[description]
                due = False  # its end is a line of its own
            elif due:
                self._last[description] = (now, done)
        if due:
            self.say(f"{description}  {figures}")

    def step(self, event: Mapping[str, Any], steps: int | None, pace: Pace) -> None:
        if event.get("logged", True):
            self.say(step_line(event, steps, pace))

    def close(self) -> None:
        pass


class LiveDisplay:
    """A bar that is redrawn in place; lines that stay are printed above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(style="cyan"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, style="grey37", complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
            transient=True,
            expand=True,
            redirect_stdout=False,  # stdout belongs to results
        )

    @property
    def width(self) -> int:
        return self._console.width

    def say(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)

    def work(self, description: str, done: float, total: float | None, figures: str) -> None:
        if total is not None and done >= total:
            self._remove(description)
        else:
            self._show(description, done, total, figures)

    def step(self, event: Mapping[str, Any], steps: int | None, pace: Pace) -> None:
        values = numbers(event)
        loss = f"loss {spoken_value(values['loss'])}" if "loss" in values else ""
        count = f"{event['step']}/{steps}" if steps else str(event["step"])
        self._show("training", event["step"], steps, _joined(count, loss, *_speed(event, steps, pace)))

    def close(self) -> None:
        self._progress.stop()

    def _show(self, description: str, done: float, total: float | None, figures: str) -> None:
        with self._lock:
            if description not in self._tasks:
                self._progress.start()
                self._tasks[description] = self._progress.add_task(description, total=total, figures="")
            self._progress.update(self._tasks[description], completed=done, total=total, figures=figures)

    def _remove(self, description: str) -> None:
        with self._lock:
            if description in self._tasks:
                self._progress.remove_task(self._tasks.pop(description))


def step_line(event: Mapping[str, Any], steps: int | None, pace: Pace) -> str:
    """`step 240/1200  loss 1.234  lr 1.9e-04  grad 0.52  3,120 tok/s  1.2 s/step  eta 12m`"""
    values = numbers(event)
    return _joined(
        step_name(event["step"], steps),
        f"loss {spoken_value(values['loss'])}" if "loss" in values else "",
        f"lr {values['learning_rate']:.1e}" if "learning_rate" in values else "",
        f"grad {values['grad_norm']:.2f}" if "grad_norm" in values else "",
        *_speed(event, steps, pace),
    )


def bytes_figures(done_bytes: float, total_bytes: float | None, seconds: float) -> str:
    """`1.2 GB of 4.9 GB  310 MB/s  eta 12s`"""
    rate = done_bytes / seconds if seconds > 0 else 0.0
    left = spoken_seconds((total_bytes - done_bytes) / rate) if total_bytes and rate else ""
    return _joined(
        f"{spoken_bytes(done_bytes)} of {spoken_bytes(total_bytes)}" if total_bytes else spoken_bytes(done_bytes),
        f"{spoken_bytes(rate)}/s" if rate else "",
        f"eta {left}" if left else "",
    )


def _speed(event: Mapping[str, Any], steps: int | None, pace: Pace) -> tuple[str, ...]:
    seconds = pace.seconds_per_step
    left = (steps - event["step"]) * seconds if steps else 0.0
    return (
        f"{pace.tokens_per_second:,.0f} tok/s" if pace.tokens_per_second else "",
        spoken_pace(seconds) if seconds else "",
        f"eta {spoken_seconds(left)}" if left else "",
    )


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)
