"""The interval follows what was measured; the ranks are told each time, people when it changes much."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from job.config import RunConfig
from job.measured import Measured
from job.pacer import FIRST_SECONDS, Pacer
from job.report.report import Report
from job.rundir import RunDir
from job.storage.attempts import Owner
from job.storage.history import Past


def config(every: str = "auto") -> RunConfig:
    tree = {"run": "r", "model": {"base": "b"}, "data": {"train": ["d"]}, "lora": None, "checkpoint": {"every": every}}
    return RunConfig.from_dict(tree)


class Told:
    def __init__(self, tmp_path: Path, every: str = "auto", past: tuple[Past, ...] = ()) -> None:
        self.said, self.local, self.measured = io.StringIO(), RunDir(tmp_path).make(), Measured()
        report = Report(config(every), Console(file=self.said, width=300))
        self.pacer = Pacer(config(every), self.local, past, report)

    def after(self, blocked: float, upload: float) -> float | None:
        for _ in range(5):
            self.measured.saw([{"kind": "snapshot", "blocked_seconds": blocked}])
            self.measured.uploaded(upload)
        self.pacer.update(self.measured)
        return self.local.checkpoint_seconds()


def past(seconds: float, code: int | None = 75) -> Past:
    return Past(Owner(1, "0" * 12), code, "", True, seconds, True)


def test_the_first_checkpoint_comes_early(tmp_path: Path) -> None:
    told = Told(tmp_path)
    told.pacer.update(told.measured)
    assert told.local.checkpoint_seconds() == FIRST_SECONDS and told.said.getvalue() == ""


def test_the_log_says_the_figures_and_repeats_them_only_when_they_change(tmp_path: Path) -> None:
    told = Told(tmp_path)
    seconds = told.after(1.0, 10.0)
    assert seconds == pytest.approx(207, abs=2)  # sqrt(2 x 1 s x 6 h) = 207.8 s, by Young's formula
    assert "a checkpoint every 3m: it blocks training for 1.00 s, is stored in 10.0 s, and 6h" in told.said.getvalue()
    told.after(1.1, 10.0)
    assert told.said.getvalue().count("a checkpoint every") == 1
    told.after(4.0, 10.0)
    assert told.said.getvalue().count("a checkpoint every") == 2


def test_frequent_interruptions_make_checkpoints_frequent(tmp_path: Path) -> None:
    seldom = Told(tmp_path / "a").after(1.0, 1.0)
    often = Told(tmp_path / "b", past=tuple(past(300.0) for _ in range(10)))
    frequent = often.after(1.0, 1.0)
    assert seldom is not None and frequent is not None and frequent < seldom / 2
    assert "learned from 10 interruptions" in often.said.getvalue()


def test_an_interval_of_the_config_is_left_alone(tmp_path: Path) -> None:
    told = Told(tmp_path, every="10 steps")
    assert told.after(1.0, 1.0) is None and told.said.getvalue() == ""
