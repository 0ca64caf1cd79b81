import io

import pytest
from rich.console import Console

from job.report.pace import Pace
from job.report.progress import LiveDisplay, PlainDisplay, bytes_figures, display_for, step_line


def _step(step: int, logged: bool = True) -> dict[str, object]:
    figures = {"loss": 1.2341, "grad_norm": 0.523, "learning_rate": 1.9e-4, "tokens": 3744, "seconds": 1.2}
    return {"kind": "step", "step": step, "logged": logged, **figures}


def _pace(*events: dict[str, object]) -> Pace:
    pace = Pace()
    for event in events:
        pace.add(event)
    return pace


def test_a_step_line_says_all_that_matters() -> None:
    assert step_line(_step(240), 840, _pace(_step(240))) == (
        "step 240/840  loss 1.234  lr 1.9e-04  grad 0.52  3,120 tok/s  1.2 s/step  eta 12m"
    )


def test_a_step_line_leaves_out_what_is_not_known() -> None:
    assert step_line({"step": 3, "loss": None, "grad_norm": None}, None, Pace()) == "step 3"


def test_the_pace_follows_the_latest_steps() -> None:
    pace = _pace(*[{"seconds": 9.0, "tokens": 10}] * 60, *[{"seconds": 0.5, "tokens": 100}] * 50)
    assert (pace.seconds_per_step, pace.tokens_per_second) == (0.5, 200.0)


def test_byte_progress_in_words() -> None:
    assert bytes_figures(1.2e9, 4.9e9, 4.0) == "1.2 GB of 4.9 GB  300 MB/s  eta 12s"
    assert bytes_figures(0, None, 0.0) == "0 B"


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_a_line_per_logged_step_and_no_control_codes() -> None:
    out = io.StringIO()
    display = PlainDisplay(Console(file=out))
    for step in range(1, 21):
        display.step(_step(step, logged=step % 10 == 0), 840, _pace(_step(step)))
    display.say("[bold]not markup[/bold] " + "long " * 60)
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines[:2]] == ["step 10/840", "step 20/840"]
    assert len(lines) == 3 and lines[2].startswith("[bold]not markup[/bold] long")
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize(
    ("seconds_per_percent", "lines"),
    [(0.001, 0), (0.2, 9), (5.0, 49)],  # at once; every tenth; every ten seconds
)
def test_a_long_pull_reports_every_tenth_or_ten_seconds_in_a_log(seconds_per_percent: float, lines: int) -> None:
    out, clock = io.StringIO(), _Clock()
    display = PlainDisplay(Console(file=out), clock)
    for percent in range(101):
        clock.now = percent * seconds_per_percent
        display.work("pulling weights", percent, 100, f"{percent} %")
    assert len(out.getvalue().splitlines()) == lines


def test_a_terminal_gets_a_live_bar_that_is_gone_at_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    display = display_for(console)
    assert isinstance(display, LiveDisplay)
    display.step(_step(240), 840, _pace(_step(240)))
    display.say("step 240/840  committed")
    display.close()
    drawn = out.getvalue()
    assert "240/840  loss 1.234" in drawn and "committed" in drawn
    assert drawn.rstrip().endswith("\x1b[2K")  # the bar's line is erased
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1  # the cursor is back


def test_no_bar_where_the_terminal_cannot_redraw() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(display_for(console), PlainDisplay)
