"""What doctor says: a line for each finding, the error to leave with, and all of it as one object for programs."""

import time
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from job.doctor.store import StoreExamination
from job.errors import ExitCode, HardwareError, JobError
from job.report.wording import counted
from job.storage.finding import Finding, Status

STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.MISSING: "bold red", Status.NOT_TRIED: "dim"}
NAME_CELLS, STATUS_CELLS = 32, 11


class Lines:
    """On a terminal in columns, wrapped within the last; in a log one line each."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def plain(self, text: str, style: str = "") -> None:
        self._console.print(text, style=style or None, highlight=False, markup=False, soft_wrap=True)

    def heading(self, text: str) -> None:
        self.plain(text, "bold" if self._console.is_terminal else "")

    def finding(self, finding: Finding, cause_is_last: bool) -> None:
        if cause_is_last:
            finding = replace(finding, seen="why: see the last line")
        if not self._console.is_terminal:
            said = f"{finding.means} ({finding.seen})" if finding.seen else finding.means
            self.plain(f"{finding.status.value:<{STATUS_CELLS}}{finding.name:<{NAME_CELLS}}{said}")
            return
        row = Table.grid(padding=0, expand=True)
        row.add_column(width=STATUS_CELLS)
        row.add_column(width=NAME_CELLS)
        row.add_column(ratio=1)
        told = Text(finding.means)
        if finding.seen:
            told.append(f" ({finding.seen})", style="dim" if finding.status == Status.OK else "")
        row.add_row(Text(finding.status.value, STYLES[finding.status]), Text(finding.name), told)
        self._console.print(row)

    def left(self, where: str, count: int) -> None:
        told = f"{counted(count, 'object')} had to stay in {where}: delete it by hand; no run looks there"
        self.plain(told, "yellow")

    def verdict(self, text: str, warned: bool) -> None:
        self.plain(text, "yellow" if warned else "green")


def cannot_start(findings: list[Finding]) -> JobError | None:
    """The error to leave with when no run can start: the first finding that is missing, and what helps."""
    first = next((finding for finding in findings if finding.status == Status.MISSING), None)
    if first is None:
        return None
    kind = type(first.error) if isinstance(first.error, JobError) else HardwareError
    return kind(f"no run can start here: {first.name}: {first.seen or first.means}")


def report(
    machine: list[Finding],
    ranks: list[Finding],
    found: list[Finding],
    store: StoreExamination | None,
    error: JobError | None,
) -> dict[str, Any]:
    actions = store is not None and store.policy is not None
    return {
        "store": None if store is None else store.uri,
        "usable": error is None,
        "exit_code": int(ExitCode.DONE if error is None else error.exit_code),
        "reason": None if error is None else str(error),
        "machine": [_shown(finding, False) for finding in machine],
        "gpus": [_shown(finding, False) for finding in ranks],
        "probes": [_shown(finding, actions) for finding in found],
        "left": [] if store is None else store.left,
        "policy": None if store is None else store.policy,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _shown(finding: Finding, actions: bool) -> dict[str, Any]:
    return {
        "name": finding.name,
        "status": finding.status.value,
        "means": finding.means,
        "seen": finding.seen,
        "action": (finding.action or None) if actions else None,
    }
