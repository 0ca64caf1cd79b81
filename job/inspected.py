"""Data seen before a GPU is asked for: prepared as a run would, then shown row by row. Needs no weights and no torch.

Nothing is written into the run folder, and nothing is claimed. Of a run that has begun its own rows are taken. The page
for people goes to stdout; with --json one object does. What happens meanwhile is said on stderr.
"""

import json
import time
from pathlib import Path
from typing import Any, cast

import click

from job.config import RunConfig
from job.errors import ConfigError, HardwareError, RankCrashed, Stopped, error_for
from job.host.launcher import start
from job.host.preemption import Stop
from job.host.topology import topology
from job.inputs import POLL_SECONDS, in_place, prepare_anew, pull_for, reuse
from job.inspection import Examined, Inspection
from job.preflight import check_room
from job.report.overview import show
from job.report.progress import stderr_console
from job.report.report import Report
from job.report.stdout import stdout_console
from job.rundir import RunDir, write_atomically
from job.settled import read_run, refuse_another_run
from job.storage.pull import pull_tokenizer
from job.storage.records import RunRecord
from job.storage.store import ObjectStore, open_store
from job.workspace import workspace

PATIENCE_SECONDS = 20.0  # somebody waits for it
PAGE_EXAMPLES = 20


def inspect(config: RunConfig, *, row: int | None, ids: bool, html: Path | None, as_json: bool) -> None:
    """Show the data of a run. `row`: its number among the training rows; None: the first that is trained.

    Call from the main thread. Raises: what `run` raises for bad data; ConfigError where there is no such row or the
    page cannot be written; StorageError; HardwareError (no room); Stopped on a signal.
    """
    stop = Stop(0.0).listen()
    if html is not None:
        _check_writable(html)
    report = Report(config, stderr_console())
    store = open_store(config.run, config.storage, PATIENCE_SECONDS, stop.requested)
    with workspace() as local:
        try:
            record = read_run(store)
            if record is not None:
                refuse_another_run(config, record)
                _as_begun(config, record, store, local, stop, report)
                tokenizer = record.tokenizer_source
            else:
                listener = report if as_json else _Listener(report, local)
                tokenizer = prepare_anew(config, config.model.base, local, stop, listener)
            examined = _examined(config, local, stop, row, PAGE_EXAMPLES if html is not None else 0)
            found = _inspection(config, record, tokenizer, examined, local)
        finally:
            report.close("stopped" if stop.requested() else "done")
    if html is not None:
        from job.report.page import page

        write_page(html, page(found))
    if as_json:
        click.echo(json.dumps({**found, "more": []}, ensure_ascii=False))
    else:
        show(stdout_console(), found, ids)
    if html is not None:
        stderr_console().print(f"wrote {html}", highlight=False, markup=False, soft_wrap=True)


# ---- the rows


class _Listener:
    """What the page will say of the data is not said twice."""

    def __init__(self, report: Report, local: RunDir) -> None:
        self._report, self._summary = report, local.prepared / "summary.json"
        self.pulling, self.handle = report.pulling, report.handle

    def message(self, text: str) -> None:
        if not (self._summary.exists() and text in json.loads(self._summary.read_text(encoding="utf-8"))["warnings"]):
            self._report.message(text)


def _as_begun(
    config: RunConfig, record: RunRecord, store: ObjectStore, local: RunDir, stop: Stop, report: Report
) -> None:
    """Tokenizer and rows as a resuming attempt would have them. The user's code, if any, has made them already."""
    check_room(local)
    pull = pull_for(config, stop, report)
    pulled = pull_tokenizer(record.tokenizer_source, local.tokenizer, pull, config.model.trust_remote_code)
    in_place(local, pulled, "tokenizer")
    reuse(record.prepared, store, local)


# ---- the program that has the tokenizer


def _examined(config: RunConfig, local: RunDir, stop: Stop, row: int | None, more: int) -> Examined:
    request, answer = local.path / "examine.json", local.path / "examined.json"
    write_atomically(
        request, json.dumps({"config": config.to_dict(), "ranks": ranks(config), "row": row, "more": more})
    )
    paths = [str(path) for path in (local.path, request, answer)]
    process = start("job.examine", paths, local, "examine", {"HF_HUB_OFFLINE": "1"})
    try:
        while process.poll() is None:
            if stop.requested():
                raise Stopped(f"stopped by {stop.reason} before the data could be shown; nothing was changed")
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    if process.returncode != 0:
        if left := local.read_error(0):
            raise error_for(*left)
        raise RankCrashed(f"the program that looks at the rows left with code {process.returncode} and no message")
    return cast(Examined, json.loads(answer.read_text(encoding="utf-8")))


def ranks(config: RunConfig) -> int:
    """As many as the machine would start; as the config says where the machine has not what it asks for."""
    try:
        return topology(config).world_size
    except (ConfigError, HardwareError):
        asked = config.parallel.nproc_per_node
        return asked if isinstance(asked, int) else 1


def _inspection(
    config: RunConfig, record: RunRecord | None, tokenizer: str, examined: Examined, local: RunDir
) -> Inspection:
    summary: dict[str, Any] = json.loads((local.prepared / "summary.json").read_text(encoding="utf-8"))
    return {
        **examined,
        "run": config.run,
        "begun": record is not None,
        "base": record.base_source if record else config.model.base,
        "tokenizer": tokenizer,
        "max_length": config.data.max_length,
        "chat_template": summary.pop("chat_template", None),
        "summary": summary,
    }


# ---- where it is shown


def _check_writable(html: Path) -> None:
    if html.is_dir() or not html.absolute().parent.is_dir():
        reason = "is a folder" if html.is_dir() else "is in no folder that exists"
        raise ConfigError(f"--html: {html} {reason}; name a file to be written")


def write_page(html: Path, text: str) -> None:
    """Raises: ConfigError where it cannot be written, HardwareError where the disk is full."""
    try:
        write_atomically(html, text)
    except OSError as error:
        raise ConfigError(f"--html: {html} cannot be written: {error.strerror}") from error
