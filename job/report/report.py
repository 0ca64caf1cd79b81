"""All that a run tells the world while it goes on. Nothing here ever stops training.

Events and calls come in; lines or a live bar, trackers, and files of the run folder come out. A tracker that fails is
switched off with one line; files that could not be stored are tried again at the next flush.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from job.config import RunConfig
from job.report.mirror import Mirror
from job.report.pace import Pace
from job.report.progress import bytes_figures, display_for
from job.report.samples import Row, Samples, with_figures
from job.report.segments import Segments
from job.report.tensorboard import TensorBoard
from job.report.trackers import DONE_SECONDS, LEAVE_SECONDS, Tracker, evaluation_scalars, step_scalars, tracker_ids
from job.report.uploads import Uploads
from job.report.wandb import Wandb
from job.report.wording import counted, metrics_line, sample_line, spoken_bytes, spoken_seconds, step_name
from job.storage.store import ObjectStore

_SHOWN_SAMPLES = 4
_STARTING = "starting"


class Report:
    """One supervisor's report, made and used in its main thread. Files and trackers come with `begin`."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._config = config
        self._display = display_for(console)
        self._pace = Pace()
        self._steps: int | None = None
        self._began: dict[str, float] = {}  # description of a pull -> when it began
        self._segments: Segments | None = None
        self._samples: Samples | None = None
        self._uploads: Uploads | None = None
        self._trackers: list[Tracker] = []

    def begin(self, store: ObjectStore, attempt: int, nonce: str, resume_step: int | None, workdir: Path) -> None:
        """The attempt is claimed: from now on what happens is stored too. `workdir` takes local files."""
        config = self._config
        self._segments, self._samples = Segments(store, attempt), Samples(store)
        folder, wandb_folder = workdir / "tensorboard", workdir / "wandb"
        mirrors = (
            Mirror(store, folder, "tensorboard"),
            Mirror(store, wandb_folder / "wandb", "wandb", ("offline-run-*/*.wandb", "offline-run-*/files/**/*")),
        )
        jobs = (self._segments.flush, self._samples.flush, *(mirror.push for mirror in mirrors))
        self._uploads = Uploads(jobs, self.message)
        if "tensorboard" in config.track:
            self._add("tensorboard", lambda: TensorBoard(folder, attempt, nonce, resume_step))
        if "wandb" in config.track:
            self._add("wandb", lambda: _wandb(config, store, wandb_folder, self.message))

    def restarted(self, resume_step: int | None) -> None:
        """The same attempt goes on from there once more: what it logged beyond is replayed."""
        step = resume_step or 0
        self._store_event({"kind": "restart", "step": step})
        self._each_tracker(lambda tracker: tracker.restarted(step))

    # ---- what the ranks tell

    def handle(self, events: list[dict[str, Any]]) -> None:
        """Take in events, in the order in which they were written."""
        for event in events:
            if event["kind"] == "samples":
                event = {**event, "rows": with_figures(event["rows"])}
            if (action := _ACTIONS.get(event["kind"])) is not None:
                action(self, event)
            self._store_event(event)

    def _preparing(self, event: Mapping[str, Any]) -> None:
        done, total = event["done"], event["total"]
        self._work("reading", done, total, f"{done:,} of {counted(total, 'row')}", counted(total, "row"))

    def _training(self, event: Mapping[str, Any]) -> None:
        self._steps = event["steps"]
        self._display.work(_STARTING, 1, 1, "")
        self.message(
            f"training {counted(event['steps'], 'step')} from step {event['step']:,}: {counted(event['rows'], 'row')}, "
            f"{event['parameters']:,} of {event['all_parameters']:,} parameters in fp32, "
            f"computing in {event['computing']} on {event['ranks']} x {event['device']} ({event['strategy']}), "
            f"{event['layout']}"
        )

    def _step(self, event: Mapping[str, Any]) -> None:
        self._pace.add(event)
        self._display.step(event, self._steps, self._pace)
        if event.get("logged", True):
            scalars = step_scalars(event)
            self._each_tracker(lambda tracker: tracker.log(event["step"], scalars))

    def _evaluation(self, event: Mapping[str, Any]) -> None:
        self._display.say(f"{step_name(event['step'], self._steps)}  {metrics_line(event['metrics'])}", "bold")
        scalars = evaluation_scalars(event)
        self._each_tracker(lambda tracker: tracker.log(event["step"], scalars))

    def _samples_made(self, event: Mapping[str, Any]) -> None:
        rows: list[Row] = event["rows"]
        for row in rows[:_SHOWN_SAMPLES]:
            self._display.say(f"  {sample_line(row, self._display.width - 2)}", "cyan")
        if self._samples is not None:
            self._samples.add(event["step"], rows)
        self._each_tracker(lambda tracker: tracker.samples(event["step"], rows))

    def _log(self, event: Mapping[str, Any]) -> None:
        self.message(str(event["message"]))

    # ---- what the supervisor tells

    def message(self, text: str) -> None:
        """One plain line that stays."""
        self._display.say(text)

    def pulling(self, description: str, done: int, total: int | None) -> None:
        """Bytes pulled so far, of all bytes where that is known; may be called from several threads."""
        began = self._began.setdefault(description, time.monotonic())
        figures = bytes_figures(done, total, time.monotonic() - began)
        self._work(description, done, total, figures, spoken_bytes(done))

    def starting(self, ranks: int) -> None:
        """The ranks were started; until their training event they import and load."""
        self._display.work(_STARTING, 0, None, f"{counted(ranks, 'rank')}: importing, loading the model")

    def committed(self, step: int, seconds: float, size_bytes: int) -> None:
        """A checkpoint's record is written: `seconds` it took, `size_bytes` it uploaded."""
        name, size, took = step_name(step, self._steps), spoken_bytes(size_bytes), spoken_seconds(seconds)
        self._display.say(f"{name}  committed  {size} in {took}", "green")
        event = {"kind": "commit", "step": step, "seconds": round(seconds, 3), "bytes": size_bytes}
        self._store_event(event)

    def flush(self) -> None:
        """Have what has grown since the last flush stored. Returns at once, never raises; what fails is tried again."""
        if self._uploads is not None:
            self._uploads.soon()

    def close(self, outcome: str) -> None:
        """The end of the attempt: `done`, `stopped`, or any other word for a failure. Never raises.

        Takes at most `trackers.LEAVE_SECONDS` for W&B and as long for the last uploads; longer only when done.
        """
        self._each_tracker(lambda tracker: tracker.close(outcome))
        self._trackers.clear()
        if self._uploads is not None:
            self._uploads.close(DONE_SECONDS if outcome == "done" else LEAVE_SECONDS)
        self._display.close()

    # ----

    def _store_event(self, event: Mapping[str, Any]) -> None:
        if self._segments is not None:
            self._segments.add(event, time.time())

    def _work(self, description: str, done: float, total: float | None, figures: str, amount: str) -> None:
        began = self._began.setdefault(description, time.monotonic())
        self._display.work(description, done, total, figures)
        if total is not None and done >= total and self._began.pop(description, None) is not None:
            self.message(f"{description}  {amount} in {spoken_seconds(time.monotonic() - began)}")

    def _add(self, name: str, make: Callable[[], Tracker]) -> None:
        try:
            self._trackers.append(make())
        except Exception as error:
            self._say_switched_off(name, error)

    def _each_tracker(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in list(self._trackers):
            try:
                tell(tracker)
            except Exception as error:
                self._trackers.remove(tracker)
                self._say_switched_off(tracker.name, error)
                with contextlib.suppress(Exception):
                    tracker.close("failed")

    def _say_switched_off(self, name: str, error: Exception) -> None:
        self.message(f"{name} is switched off, training goes on: {error}")


_ACTIONS: dict[str, Callable[[Report, Mapping[str, Any]], None]] = {
    "preparing": Report._preparing,
    "training": Report._training,
    "step": Report._step,
    "evaluation": Report._evaluation,
    "samples": Report._samples_made,
    "log": Report._log,
}


def _wandb(config: RunConfig, store: ObjectStore, folder: Path, say: Callable[[str], None]) -> Wandb:
    ids = tracker_ids(store, "wandb", os.environ.get("WANDB_PROJECT") or "sft-job")
    name = str(config.run).rstrip("/").rpartition("/")[2]
    return Wandb(ids, name, config.resolved().to_dict(), folder, say)
