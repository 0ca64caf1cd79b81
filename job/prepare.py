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

from job.config import RunConfig
from job.errors import DataError, Stopped
from job.rundir import EventWriter, Prepare, RunDir
from job.training.dataset import Summary
from job.training.fingerprint import fingerprint
from job.training.gates import Gates
from job.training.preparation import Output, Preparation, held_out
from job.training.process import bind_to_parent, leave
from job.training.rows import Source, lines
from job.training.tokenizer import chat_template_text, leave_torch_out, load_tokenizer

EVENT_SECONDS = 0.5
SHOWN_FILES = 3
SOURCE_OPTIONS = ("format", "columns", "loss")


def prepare(run: RunDir) -> Summary:
    """Writes `run.prepared`: train.arrow, eval.arrow where `data.eval` asks for it, summary.json.

    Raises DataError and ConfigError; Stopped when a stop is requested. Nothing half-written is left.
    """
    request = Prepare.read(run)
    config = RunConfig.from_dict(request.config)
    template = chat_template_text(config.model.chat_template)
    tokenizer = load_tokenizer(run.tokenizer, template, config.model.trust_remote_code)
    partial = run.prepared.with_name(f".{run.prepared.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        summary = _write(partial, run, request, config, tokenizer, template)
        summary.write(partial / "summary.json")
        shutil.rmtree(run.prepared, ignore_errors=True)
        partial.rename(run.prepared)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def _write(
    folder: Path, run: RunDir, request: Prepare, config: RunConfig, tokenizer: Any, template: str | None
) -> Summary:
    data = config.data
    train, evaluation = (_sources(listed, config.to_dict()["data"]) for listed in (request.train, request.eval))
    rows, eval_rows = (sum(1 for source in sources for _ in lines(source)) for sources in (train, evaluation))
    for name, sources, count in (("train", train, rows), ("eval", evaluation, eval_rows)):
        if sources and not count:
            more = ", ..." if len(sources) > SHOWN_FILES else ""
            named = ", ".join(source.uri for source in sources[:SHOWN_FILES])
            raise DataError(f"data.{name}: no row to use: {named}{more} holds no line")
    gates = Gates(data.max_length, data.overlong)
    with ExitStack() as files:
        work = Preparation(tokenizer, data.append_eos, gates, _progress(run, rows + eval_rows, files))
        outputs = [Output(folder / "train.arrow", work.encoder.bos_id)]
        if data.eval is not None:
            outputs.append(Output(folder / "eval.arrow", work.encoder.bos_id))
        for output in outputs:
            files.enter_context(closing(output))
        if isinstance(data.eval, float):
            for_eval = held_out(rows, data.eval, config.train.seed)
            work.feed(train, lambda number: outputs[int(for_eval[number])])
        else:
            work.feed(train, lambda number: outputs[0])
            work.feed(evaluation, lambda number: outputs[-1])
    trained = outputs[0]
    warnings = gates.verdict(trained.rows, outputs[1].rows if data.eval is not None else None)
    return Summary(
        fingerprint=_fingerprint(request, config, run.tokenizer, template),
        formats=work.formats,
        rows=trained.rows,
        eval_rows=sum(output.rows for output in outputs[1:]),
        tokens=trained.tokens,
        trained_tokens=trained.trained,
        longest_row=max(output.longest for output in outputs),
        largest_id=max(output.largest_id for output in outputs),
        dropped=dict(gates.dropped),
        truncated=gates.truncated,
        warnings=warnings,
        end_of_turn_ids=list(gates.ends) or [token for token in (work.encoder.eos_id,) if token is not None],
        bos_per_row=[min(trained.bos), max(trained.bos)] if trained.bos else [],
        vocab_size=len(tokenizer),
        chat=work.chat,
        chat_template=work.marker.chat_template if work.chat or template else None,
    )


def _sources(listed: Sequence[Mapping[str, Any]], data: Mapping[str, Any]) -> list[Source]:
    """A source's own options win over those of `data`."""
    sources = []
    for source in listed:
        options = {name: source.get(name) or data.get(name) for name in SOURCE_OPTIONS}
        given = {name: value for name, value in options.items() if value is not None}
        sources.append(Source(source["uri"], Path(source["path"]), **given))
    return sources


def _fingerprint(request: Prepare, config: RunConfig, tokenizer: Path, template: str | None) -> str:
    options = {name: value for name, value in config.to_dict()["data"].items() if name not in ("train", "eval")}
    if isinstance(config.data.eval, float):
        options |= {"eval_share": config.data.eval, "seed": config.train.seed}
    return fingerprint(request.train, request.eval, tokenizer, template, options)


def _progress(run: RunDir, total: int, files: ExitStack) -> Callable[[int], None]:
    """Looks at the stop request at each call, and says how far it is at most every half second."""
    events = files.enter_context(closing(EventWriter(run.events)))
    said = time.monotonic()

    def tick(done: int) -> None:
        nonlocal said
        if reason := run.stop_requested():
            raise Stopped(f"stopped while preparing the data: {reason}")
        if time.monotonic() - said >= EVENT_SECONDS or done == total:
            said = time.monotonic()
            events.write("preparing", done=done, total=total)

    return tick


def main(arguments: Sequence[str]) -> int:
    bind_to_parent()
    leave_torch_out()
    run = RunDir(Path(arguments[0]))

    def story() -> None:
        prepare(run)

    return leave(run, 0, story)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
