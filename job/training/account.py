"""The account of a preparation: its summary and its warnings, from what was met."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from job.config import RunConfig
from job.training import verdict
from job.training.batches import Schedule
from job.training.batching import EVAL, SPLITS, TRAIN
from job.training.findings import File, Findings
from job.training.mixture import Part
from job.training.preparation import Preparation
from job.training.summary import Summary
from job.training.tally import Tally, by_powers_of_two


def summary_of(
    found: Findings, work: Preparation, config: RunConfig, folder: Path, name: str, vocabulary: int
) -> Summary:
    """`folder` holds the prepared rows, `name` is their fingerprint, `vocabulary` the tokenizer's size."""
    train, evaluation = found.train, found.evaluation
    both = (train, evaluation)
    schedule = Schedule.of(config, train.rows, _parts(work, found))
    repeats = found.look_for_repeats(folder, _files(work))
    work.marker.lost_thoughts = found.lost_thoughts
    short = verdict.few_steps(schedule)
    ends = list(train.ends | evaluation.ends)
    return Summary(
        fingerprint=name,
        formats=list(dict.fromkeys(found for found in work.formats if found)),
        rows=train.rows,
        eval_rows=evaluation.rows,
        tokens=train.tokens,
        trained_tokens=train.trained,
        longest_row=max(tally.longest for tally in both),
        largest_id=max(tally.largest_id for tally in both),
        dropped=dict(train.dropped + evaluation.dropped),
        truncated=sum(tally.truncated for tally in both),
        warnings=[
            *verdict.said(found.by_field(), config.data.max_length), *work.marker.notes(), *repeats,
            *verdict.unmet(_unmet(config.model.add_tokens, work, train)),
            *([short] if short else []),
        ],
        end_of_turn_ids=ends or [token for token in (work.encoder.eos_id,) if token is not None],
        bos_per_row=[min(train.bos), max(train.bos)] if train.bos else [],
        vocab_size=vocabulary,
        chat=found.chat,
        chat_template=work.marker.chat_template if found.chat or config.model.chat_template is not None else None,
        epoch_rows=schedule.epoch_rows,
        parts=[list(part) for part in schedule.parts],
        seen=sum(tally.seen for tally in both),
        split=sum(tally.split for tally in both),
        eval_tokens=evaluation.tokens,
        eval_trained_tokens=evaluation.trained,
        end_of_turn_rate=train.ended / train.rows,
        lengths=by_powers_of_two(train.lengths),
        duplicates=found.duplicates,
        overlap=found.overlap,
        steps=schedule.steps,
        sources=found.sources(work.sources, work.formats),
    )  # fmt: skip


def _files(work: Preparation) -> list[File]:
    """Of each source, where the config names it and how."""
    fields = (SPLITS[TRAIN] if place < len(work.train) else SPLITS[EVAL] for place in range(len(work.sources)))
    return [(f"data.{field}", source.uri) for field, source in zip(fields, work.sources, strict=True)]


def _unmet(added: Sequence[str], work: Preparation, train: Tally) -> list[str]:
    return [text for text in added if work.tokenizer.convert_tokens_to_ids(text) not in train.met]


def _parts(work: Preparation, found: Findings) -> tuple[Part, ...]:
    """Of each entry of data.train, in order; empty where all rows count once."""
    rows: Counter[int] = Counter()
    weights: dict[int, float] = {}
    for place, source in enumerate(work.train):
        rows[source.part] += found.train.rows_of[place]
        weights[source.part] = source.weight
    if all(weight == 1 for weight in weights.values()):
        return ()
    return tuple((rows[part], weight) for part, weight in weights.items())
