"""Data become prepared rows: written beside their place, renamed into it when whole.

Started as `python -m job.prepare RUNDIR`.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from job.config import RunConfig
from job.cores import usable_cores
from job.errors import DataError, Stopped
from job.rundir import EventWriter, Prepare, RunDir
from job.training import verdict
from job.training.account import summary_of
from job.training.batching import SPLITS, batches, counted, held_out
from job.training.dataset import RowWriter
from job.training.findings import Findings
from job.training.fingerprint import digest, fingerprint
from job.training.hooks import Hooks, load_hooks
from job.training.pool import in_order
from job.training.preparation import Preparation
from job.training.process import bind_to_parent, leave
from job.training.rows import Source
from job.training.summary import Summary
from job.training.tokenizer import chat_template_text, leave_torch_out, load_tokenizer

EVENT_SECONDS = 0.5
SHOWN_FILES = 3
SOURCE_OPTIONS = ("format", "columns", "loss", "weight", "split", "part")
MOST_WORKERS = 16  # one process reads for all and writes for all
ALONE_BYTES = 1_000_000  # of data files: up to there more processes cost more than they save


def prepare(run: RunDir, workers: int | None = None) -> Summary:
    """Writes `run.prepared`: train-*.arrow, eval-*.arrow where `data.eval` asks for it, summary.json.

    `workers`: processes that share the work, by default one a core; the rows are the same for any number.
    Raises DataError and ConfigError; Stopped when a stop is requested. Nothing half-written is left.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads would not live through a fork, and the cores are used
    request = Prepare.read(run)
    config = RunConfig.from_dict(request.config)
    partial = run.prepared.with_name(f".{run.prepared.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        summary = _write(partial, run, request, config, workers)
        summary.write(partial / "summary.json")
        shutil.rmtree(run.prepared, ignore_errors=True)
        partial.rename(run.prepared)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _write(folder: Path, run: RunDir, request: Prepare, config: RunConfig, workers: int | None) -> Summary:
    data = config.data
    template = chat_template_text(config.model.chat_template)
    added = config.model.add_tokens
    tokenizer = load_tokenizer(run.tokenizer, template, config.model.trust_remote_code, added)
    hooks = _hooks(config, folder / run.hooks.name)
    train, evaluation = (_sources(listed, config.to_dict()["data"]) for listed in (request.train, request.eval))
    with closing(_Progress(run)) as progress:
        rows, eval_rows = (_counted(*each, progress.poll) for each in (("train", train), ("eval", evaluation)))
        for_eval = held_out(rows, data.eval, config.train.seed) if isinstance(data.eval, float) else np.zeros(0, bool)
        work = Preparation(tokenizer, data.append_eos, data.max_length, data.overlong, train, evaluation, hooks)
        progress.total = rows + eval_rows
        found = Findings(1 if data.eval is None else len(SPLITS))
        with ExitStack() as files:
            writers = [files.enter_context(closing(RowWriter(folder, name))) for name in SPLITS[: len(found.tallies)]]
            crew = _workers(work.sources) if workers is None else workers
            results = in_order(work, batches(train, evaluation, for_eval), crew, progress.poll)
            for done in files.enter_context(closing(results)):
                found.add(done)
                for split, prepared in done.prepared.items():
                    if prepared.table is not None:
                        writers[split].write(prepared.table)
                progress.tick(found.lines)
    verdict.check(found.faults, found.by_field(), data.max_length, data.overlong)
    options = {name: value for name, value in config.to_dict()["data"].items() if name not in ("train", "eval")}
    if isinstance(data.eval, float):
        options |= {"eval_share": data.eval, "seed": config.train.seed}
    if added:
        options |= {"add_tokens": list(added)}
    if config.hooks is not None:
        options |= {"hooks": digest(folder / run.hooks.name)}
    name = fingerprint(request.train, request.eval, run.tokenizer, template, options)
    return summary_of(found, work, config, folder, name, len(tokenizer))


def _sources(listed: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> list[Source]:
    """A source's own options win over those of `data`."""
    sources = []
    for source in listed:
        options = {name: source.get(name) or data.get(name) for name in SOURCE_OPTIONS}
        given = {name: value for name, value in options.items() if value is not None}
        sources.append(Source(source["uri"], Path(source["path"]), **given))
    return sources


def _hooks(config: RunConfig, copy: Path) -> Hooks:
    """The user's module, copied to stay with the rows. Raises ConfigError."""
    if config.hooks is None:
        return Hooks()
    shutil.copyfile(config.hooks, copy)
    return load_hooks(copy, config.hooks)


def _counted(name: str, sources: Sequence[Source], poll: Callable[[], None]) -> int:
    rows = sum(counted(source, poll) for source in sources)
    if sources and not rows:
        more = ", ..." if len(sources) > SHOWN_FILES else ""
        named = ", ".join(source.uri for source in sources[:SHOWN_FILES])
        raise DataError(f"data.{name}: no row to use: {named}{more} holds no row")
    return rows


def _workers(sources: Sequence[Source]) -> int:
    """0 where one process does as well."""
    small = sum(source.path.stat().st_size for source in sources) <= ALONE_BYTES
    return 0 if small else min(usable_cores(), MOST_WORKERS)


class _Progress:
    """Looks at the stop request at each call, and says how far it is at most every half second."""

    def __init__(self, run: RunDir) -> None:
        self._run, self._events, self._said = run, EventWriter(run.events), time.monotonic()
        self.total = 0

    def poll(self) -> None:
        """Raises Stopped."""
        if reason := self._run.stop_requested():
            raise Stopped(f"stopped while preparing the data: {reason}")

    def tick(self, done: int) -> None:
        self.poll()
        if time.monotonic() - self._said >= EVENT_SECONDS or done == self.total:
            self._said = time.monotonic()
            self._events.write("preparing", done=done, total=self.total)

    def close(self) -> None:
        self._events.close()


def main(arguments: Sequence[str]) -> int:
    bind_to_parent()
    leave_torch_out()
    run = RunDir(Path(arguments[0]))

    def story() -> None:
        prepare(run)

    return leave(run, 0, story)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
