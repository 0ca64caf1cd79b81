"""Can a run live here? The store is probed as a run would use it; a line per probe, then the policy it needs.

Lines for people go to stderr; to stdout goes the policy, or with --json everything as one object.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from job.config import load_config
from job.errors import ConfigError, ExitCode
from job.host.preemption import Stop
from job.report.progress import stderr_console
from job.report.wording import counted
from job.storage.filesystem import existing, probe_filesystem
from job.storage.finding import Finding, Status, cannot_run
from job.storage.policy import run_policy
from job.storage.probe import StoreProbes
from job.storage.store import NO_OPTIONS, BucketOptions, ObjectStore, open_store
from job.workspace import scratch_folder

PATIENCE_SECONDS = 20.0  # somebody waits for it: what is away is said to be so soon
STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.MISSING: "bold red", Status.NOT_TRIED: "dim"}
NAME_CELLS, STATUS_CELLS = 32, 11


def doctor(where: str | None, as_json: bool = False) -> None:
    """Probe the store at `where`: a URI, a path, or a RUN.yaml, whose run folder and storage options are then used.

    Raises: ConfigError where it is no store; StorageError or HardwareError where no run can work, naming the first
    probe that failed; Stopped on a signal. Returns where a run can work, perhaps with warnings.
    """
    if not where:
        raise ConfigError("name the store to be probed: sft-job doctor --store s3://bucket/prefix, or a path")
    stop = Stop(0.0).listen()
    uri, buckets = _place(where)
    store = open_store(uri, buckets, PATIENCE_SECONDS, stop.requested)
    policy = _policy(store.uri, buckets)
    console = stderr_console()
    say = Console(quiet=True) if as_json else console
    say.print(f"probing {store.uri}", highlight=False, markup=False, soft_wrap=True)
    findings: list[Finding] = []
    left: list[str] = []
    with _made_again(store), scratch_folder("doctor") as scratch:
        folder = f"doctor-{secrets.token_hex(6)}"
        probes = StoreProbes(store, folder, scratch, stopped=stop.requested)
        try:
            for finding in _all(store, probes, folder):
                first = finding.status == Status.MISSING and cannot_run(findings, store.uri) is None
                findings.append(finding)
                _print(say, replace(finding, seen="why: see the last line") if first else finding)
        finally:
            left = probes.clean_up()
            if left:
                _left(say, f"{store.uri}/{folder}", len(left))
    error = cannot_run(findings, store.uri)
    if as_json:
        click.echo(json.dumps(_report(store.uri, findings, policy, left, folder, error), ensure_ascii=False))
    elif policy is not None:
        say.print("\nTo stdout goes the least that a policy has to allow:", highlight=False)
        click.echo(json.dumps(policy, indent=2))
    if error is not None:
        raise error
    warnings = sum(finding.status == Status.WARNING for finding in findings)
    say.print(
        f"a run can live in {store.uri}" + (f", with {counted(warnings, 'warning')}" if warnings else ""),
        style="yellow" if warnings else "green",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _place(where: str) -> tuple[str, Mapping[str, BucketOptions]]:
    if Path(where).suffix in (".yaml", ".yml") and "://" not in where:
        config = load_config(Path(where))
        return config.run, config.storage
    if "://" not in where and Path(where).expanduser().is_file():
        raise ConfigError(f"{where} is a file, but neither a folder nor a RUN.yaml: this is no store")
    return where, NO_OPTIONS


def _policy(uri: str, buckets: Mapping[str, BucketOptions]) -> dict[str, Any] | None:
    if not uri.startswith("s3://"):
        return None
    from job.storage.s3_client import encryption, make_clients

    bucket = uri.removeprefix("s3://").partition("/")[0]
    options = buckets.get(bucket)
    return run_policy(uri, encryption(options), make_clients(bucket, options, 1).control.meta.partition)


def _all(store: ObjectStore, probes: StoreProbes, folder: str) -> Iterator[Finding]:
    local = store.local_path(folder)
    if local is not None:
        yield from probe_filesystem(local.parent, folder)
    yield from probes.run()


@contextlib.contextmanager
def _made_again(store: ObjectStore) -> Iterator[None]:
    """A folder that was not there before is not there afterwards, nor its parents, unless something lies in them."""
    root = store.local_path("doctor")
    there = None if root is None else existing(root.parent)
    try:
        yield
    finally:
        if root is not None:
            folder = root.parent
            with contextlib.suppress(OSError):
                while folder != there:
                    folder.rmdir()
                    folder = folder.parent


# ---- what is said


def _print(console: Console, finding: Finding) -> None:
    """On a terminal in columns, wrapped within the last; in a log one line."""
    said = f"{finding.means} ({finding.seen})" if finding.seen else finding.means
    if not console.is_terminal:
        line = f"{finding.status.value:<{STATUS_CELLS}}{finding.name:<{NAME_CELLS}}{said}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        return
    row = Table.grid(padding=0, expand=True)
    row.add_column(width=STATUS_CELLS)
    row.add_column(width=NAME_CELLS)
    row.add_column(ratio=1)
    told = Text(finding.means)
    if finding.seen:
        told.append(f" ({finding.seen})", style="dim" if finding.status == Status.OK else "")
    row.add_row(Text(finding.status.value, STYLES[finding.status]), Text(finding.name), told)
    console.print(row)


def _left(console: Console, where: str, count: int) -> None:
    text = f"{counted(count, 'object')} had to stay in {where}: delete it by hand; no run looks there"
    console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def _report(
    uri: str,
    findings: list[Finding],
    policy: dict[str, Any] | None,
    left: list[str],
    folder: str,
    error: Exception | None,
) -> dict[str, Any]:
    actions = uri.startswith("s3://")
    return {
        "store": uri,
        "usable": error is None,
        "exit_code": int(getattr(error, "exit_code", ExitCode.DONE)),
        "reason": None if error is None else str(error),
        "probes": [
            {
                "name": finding.name,
                "status": finding.status.value,
                "means": finding.means,
                "seen": finding.seen,
                "action": (finding.action or None) if actions else None,
            }
            for finding in findings
        ],
        "left": left,
        "policy": policy,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
