"""Is everything that a run committed still what it was? Checked by size and SHA-256; with `deep`, loaded as well.

Nothing is written into the run folder, nothing deleted. Lines for people go to stderr; --json gives stdout one object.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from job.config import load_config
from job.errors import ConfigError, DataError, JobError, Stopped
from job.host.preemption import Stop
from job.loading import Loader
from job.report.progress import Display, PlainDisplay, bytes_figures, display_for, stderr_console
from job.report.wording import counted, spoken_bytes
from job.storage.stock import UNFINISHED_FORK, Stock, take_stock
from job.storage.store import NO_OPTIONS, ObjectStore, open_store
from job.storage.verification import Checked, Load, Verification
from job.workspace import scratch_folder

PATIENCE_SECONDS = 60.0


def verify(run: str, *, deep: bool = False, as_json: bool = False) -> None:
    """Check RUN, a RUN.yaml or a run folder. Call from the main thread.

    Raises: DataError naming everything that is damaged; ConfigError where it is no run; StorageError where the store
    cannot be read; HardwareError without room for the largest file (with `deep`: commit); Stopped on a signal.
    """
    stop = Stop(0.0).listen()
    store = _run_store(run, stop)
    stock = take_stock(store)
    display = PlainDisplay(Console(quiet=True)) if as_json else display_for(stderr_console())
    try:
        with scratch_folder("verify") as scratch:
            read = _Reading(display, stock.total_bytes(), stop)
            with _loading(deep and not stock.empty, scratch, stock, store, stop, display) as load:
                checked = []
                for one in [] if stock.empty else Verification(store, stock, scratch, read, load).run():
                    checked.append(one)
                    _say(display, one)
            display.work("checking", 1, 1, "")
        _say_rest(display, stock)
        error = verdict(store.uri, checked)
        if as_json:
            click.echo(json.dumps(report(store.uri, deep, stock, checked, error), ensure_ascii=False))
        if error is not None:
            raise error
        display.say(f"ok: {_good(stock, checked, deep)} in {store.uri}", "green")
    finally:
        display.close()


def verdict(uri: str, checked: list[Checked]) -> DataError | None:
    """What is damaged, all of it in one line, and what is left to do."""
    bad = [one for one in checked if one.problems]
    if not bad:
        return None
    named = "; ".join(f"{one.key}: {one.problems[0]}{_more(one)}" for one in bad)
    return DataError(f"{uri} is damaged: {named}{_way_on(checked)}")


def report(uri: str, deep: bool, stock: Stock, checked: list[Checked], error: JobError | None) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "run": uri,
        "ok": error is None,
        "deep": deep,
        "verdict": "ok" if error is None else str(error),
        "checked": [{**vars(one), "ok": not one.problems} for one in checked],
        "marks": [vars(mark) for mark in stock.marks],
        "unrecorded": [vars(one) for one in stock.unrecorded],
    }


# ---- what is needed


def _run_store(run: str, stop: Stop) -> ObjectStore:
    if Path(run).suffix in (".yaml", ".yml") and "://" not in run:
        config = load_config(Path(run))
        return open_store(config.run, config.storage, PATIENCE_SECONDS, stop.requested)
    if Path(run).is_file():
        raise ConfigError(f"{run} is a file, but neither a RUN.yaml nor a run folder")
    return open_store(run, NO_OPTIONS, PATIENCE_SECONDS, stop.requested)


@contextlib.contextmanager
def _loading(
    deep: bool, scratch: Path, stock: Stock, store: ObjectStore, stop: Stop, display: Display
) -> Iterator[Load | None]:
    if not deep:
        yield None
        return
    with Loader(scratch, stock, store, stop, display) as loader:
        yield loader.load


class _Reading:
    """Counts what was read, shows it, and hears a stop."""

    def __init__(self, display: Display, total_bytes: int, stop: Stop) -> None:
        self._display, self._total, self._stop = display, total_bytes, stop
        self._done, self._began = 0, time.monotonic()

    def __call__(self, count: int) -> None:
        if self._stop.requested():
            raise Stopped(f"stopped by {self._stop.reason} while verifying; nothing was changed")
        self._done += count
        if self._done < self._total:
            figures = bytes_figures(self._done, self._total, time.monotonic() - self._began)
            self._display.work("checking", self._done, self._total, figures)


# ---- what is said


def _way_on(checked: list[Checked]) -> str:
    commits = [one for one in checked if one.kind == "commit"]
    whole = [one.key for one in commits if not one.problems]
    newest = f"the newest commit that is whole is {whole[-1]}" if whole else "no commit is whole"
    needed = [one for one in checked if one.kind in ("run", "prepared") and one.problems]
    if any(UNFINISHED_FORK in problem for one in needed for problem in one.problems):
        return ""
    if needed:
        keys = " and ".join(one.key for one in needed)
        return (
            f". Restore {keys} from a backup or an older version of the object: nobody can go on without; "
            f"{newest if commits else 'there is no commit'}"
        )
    if not commits:
        return ""
    if not whole:
        return ". No commit is whole: restore the files, or begin anew in another run folder"
    lost = any(one.kind == "result" and "".join(one.problems).startswith("is missing") for one in checked)
    again = ": run the same command again, and it makes the result once more" if lost else ""
    return f". {newest[0].upper()}{newest[1:]}{again}"


def _say(display: Display, one: Checked) -> None:
    size = f"{counted(one.files, 'file')}, {spoken_bytes(one.bytes)}" if one.files else ""
    outcome = f"DAMAGED: {'; '.join(one.problems)}" if one.problems else "ok"
    line = f"{_name(one):<26}{size:<20}{outcome}{''.join(f' ({note})' for note in one.notes)}"
    display.say(line, "bold red" if one.problems else "yellow" if "marked" in "".join(one.notes) else "")


def _name(one: Checked) -> str:
    if one.kind == "commit":
        return f"step {one.step}  attempt {one.attempt}"
    return {"run": "run.json", "prepared": "prepared rows", "result": f"result, step {one.step}"}[one.kind]


def _say_rest(display: Display, stock: Stock) -> None:
    there = {key for key, _ in stock.commits}
    for mark in stock.marks:
        if mark.commit not in there:
            display.say(f"{mark.commit} is gone; attempt {mark.attempt} had marked it as damaged: {mark.reason}")
    for stray in stock.unrecorded:
        size = f"{counted(stray.files, 'file')}, {spoken_bytes(stray.bytes)}"
        what = "keep them, the record may be a lost one" if stock.lost else "harmless, a run never looks at them"
        display.say(f"{stray.folder}: {size} that no record names: {what}")


def _good(stock: Stock, checked: list[Checked], deep: bool) -> str:
    if stock.empty:
        return "the run has begun, and nothing was committed yet"
    commits = sum(one.kind == "commit" for one in checked)
    parts = [counted(commits, "commit")] + (["the result"] if any(one.kind == "result" for one in checked) else [])
    return f"{' and '.join(parts)} verified{', and loaded' if deep else ''}"


def _more(one: Checked) -> str:
    return f" and {counted(len(one.problems) - 1, 'more fault')}" if len(one.problems) > 1 else ""
