"""The real W&B client, offline: what it records, and that nothing of it outlives a run."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from job.report.samples import with_figures
from job.report.wandb import Wandb
from tests.wandb_files import history

IDS = {"id": "abc123", "project": "stories"}
ROWS = with_figures([{"prompt": "微调测试", "generation": "我学会了"}])


class Ours:
    """This process's descendants but those of other tests, the S3 server of the session for instance."""

    def __init__(self) -> None:
        self._others = set(psutil.Process().children(recursive=True))

    def children(self, recursive: bool = False) -> list[psutil.Process]:
        return [child for child in psutil.Process().children(recursive) if child not in self._others]


@pytest.fixture
def ours() -> Ours:
    return Ours()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def _history(folder: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of the one offline run below `folder`."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return history(path)


def test_offline_all_rows_are_recorded_under_our_id_and_step(tmp_path: Path, ours: Ours) -> None:
    said: list[str] = []
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    tracker = Wandb(IDS, "first", {"train": {"seed": 42}}, tmp_path, said.append)
    tracker.log(241, {"train/loss": 2.0})
    tracker.samples(242, ROWS)
    tracker.close("done")
    rows = list(_history(tmp_path))
    assert [row["step"] for row in rows] == [241, 242]
    assert rows[0]["train/loss"] == 2.0
    assert next(tmp_path.glob("wandb/offline-run-*/*.wandb")).name == "run-abc123.wandb"
    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/*.json")
    assert json.loads(table.read_text())["data"] == [["微调测试", "我学会了", 4, 4, 0.0]]
    assert said == []
    assert "WANDB_SERVICE" not in os.environ
    assert {kind: signal.getsignal(kind) for kind in before} == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert ours.children(recursive=True) == []


def test_without_credentials_the_run_is_kept_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    said: list[str] = []
    tracker = Wandb(IDS, "first", {}, tmp_path, said.append)
    tracker.log(1, {"train/loss": 2.0})
    tracker.close("done")
    assert [row["step"] for row in _history(tmp_path)] == [1]
    assert len(said) == 1 and "kept offline" in said[0]


def test_a_dead_feed_is_a_failure_at_the_next_row_and_its_end_is_silent(tmp_path: Path, ours: Ours) -> None:
    tracker = Wandb(IDS, "first", {}, tmp_path, lambda text: None)
    (feed,) = ours.children()
    feed.kill()
    with pytest.raises(RuntimeError, match="process ended"):
        _until_raised(tracker)
    tracker.close("failed")
    assert ours.children(recursive=True) == []


def _until_raised(tracker: Wandb) -> None:
    waiting = threading.Event()
    while not waiting.wait(0.05):
        tracker.log(1, {"train/loss": 2.0})


def test_a_feed_that_hangs_is_ended_with_its_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: Ours
) -> None:
    monkeypatch.setattr("job.report.wandb.LEAVE_SECONDS", 0.2)
    said: list[str] = []
    tracker = Wandb(IDS, "first", {}, tmp_path, said.append)
    family = _family(ours, "wandb-core")
    family[0].suspend()
    tracker.close("stopped")
    assert said == ["wandb: not everything was sent in time"]
    _gone(family)


SUPERVISOR = """
import sys, time
from pathlib import Path
from job.report.wandb import Wandb
tracker = Wandb({"id": "abc123", "project": "p"}, "first", {}, Path(sys.argv[1]), print)
tracker.log(1, {"train/loss": 2.0})
time.sleep(600)
"""


def test_nothing_of_it_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path)]) as supervisor:
        family = _family(psutil.Process(supervisor.pid), "wandb-core")
        supervisor.kill()
    _gone(family)


def _family(parent: psutil.Process | Ours, last: str) -> list[psutil.Process]:
    """All descendants, once the one whose name is `last` is among them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        family = parent.children(recursive=True)
        if any(process.name() == last for process in family):
            return family
        time.sleep(0.05)
    raise AssertionError(f"no {last} started")


def _gone(family: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
