"""A batch of rows goes through reading, marking, encoding and the gates; the result depends on that batch alone."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np

from job.training.batching import Batch
from job.training.chat import Marked, Marker
from job.training.dataset import numbers_in, table_of
from job.training.duplicates import Digests, digest, digests
from job.training.encode import Encoded, Encoder
from job.training.files import Raw, parsed, raw_records
from job.training.formats import reader_for
from job.training.gates import Gates
from job.training.hooks import Hooks
from job.training.rows import Chat, Instruction, Reader, Record, Row, RowError, Source
from job.training.tally import Faults, Tally

LOOKED_AT = 1000  # rows of a file, for one that says the format


@dataclass(frozen=True)
class Prepared:
    """The rows of one split: as they are stored, a digest of each, and what was met."""

    table: Any  # a record batch, None without rows
    digests: Digests
    tally: Tally


@dataclass
class Done:
    """What became of a batch of `lines` lines."""

    lines: int
    prepared: dict[int, Prepared] = field(default_factory=dict)  # by split
    faults: Faults = field(default_factory=Faults)
    chat: bool = False
    lost_thoughts: int = 0


@dataclass(frozen=True)
class _Ready:
    """A row that is marked and waits for its tokens."""

    source: int
    number: int
    split: int
    marked: Marked


@dataclass(frozen=True)
class _Known:
    """The format of a source, and the number of the row that showed it."""

    since: int
    format: str
    reader: Reader


class Preparation:
    """Knows what all batches have in common. Everything it learns is learnt when it is made: workers are forked then.

    `hooks`: the user's own `row`. Raises: ConfigError and DataError for what is wrong with all rows.
    """

    def __init__(
        self, tokenizer: Any, append_eos: bool | str, max_length: int, overlong: str, train: Sequence[Source],
        evaluation: Sequence[Source], hooks: Hooks,
    ) -> None:  # fmt: skip
        self.marker, self.encoder = Marker(tokenizer, append_eos), Encoder(tokenizer)
        self._max_length, self._overlong, self._hooks = max_length, overlong, hooks
        self.train, self.sources = train, [*train, *evaluation]
        self._names = [source.uri.rpartition("/")[2] for source in self.sources]
        self._known = [self._learn(source) for source in self.sources]
        self.marker.lost_thoughts = 0

    @property
    def formats(self) -> list[str | None]:
        """Of each source; None where no row shows one."""
        return [known.format if known else None for known in self._known]

    def __call__(self, batch: Batch) -> Done:
        """Raises: as `Preparation`."""
        done = Done(len(batch.lines))
        tallies: dict[int, Tally] = {split: Tally() for split in set(batch.splits)}
        gates = Gates(self._max_length, self._overlong, self.encoder.bos_id)
        before = self.marker.lost_thoughts
        ready: list[_Ready] = []
        for line, split in zip(batch.lines, batch.splits, strict=True):
            try:
                ready += self._marked(line, split, done)
            except RowError as reason:
                done.faults.add(self.sources[line[0]].place(line[1]), str(reason))
        kept: dict[int, list[tuple[Encoded, str]]] = {split: [] for split in tallies}
        for row, encoded in zip(ready, self.encoder.encode([row.marked for row in ready]), strict=True):
            try:
                if isinstance(encoded, RowError):
                    raise encoded
                used = gates.admit(row.marked, encoded, tallies[row.split])
            except RowError as reason:
                done.faults.add(self.sources[row.source].place(row.number), str(reason))
                continue
            name = f"{self._names[row.source]}:{row.number}"
            kept[row.split] += [(part, name) for part in used]
            tallies[row.split].rows_of[row.source] += len(used)
        done.lost_thoughts = self.marker.lost_thoughts - before
        done.prepared = {split: _packed(rows, tallies[split], self.encoder.bos_id) for split, rows in kept.items()}
        return done

    def _marked(self, line: tuple[int, int, Raw], split: int, done: Done) -> Iterator[_Ready]:
        source, number, raw = line
        for row in self._rows(self.sources[source], number, self._records(raw), self._known[source]):
            done.chat = done.chat or isinstance(row, Chat)
            yield _Ready(source, number, split, self.marker.mark(row, self.sources[source].loss))

    def _rows(self, source: Source, number: int, records: Sequence[Record], known: _Known | None) -> Iterator[Row]:
        for record in records:
            reader = known.reader if known and number >= known.since else reader_for(source, record)[1]
            row = reader(record)
            if isinstance(row, Instruction):
                row = row.pair if self.marker.chat_template is None else row.chat
            yield row

    def _records(self, raw: Raw) -> list[Record]:
        record = parsed(raw)
        if isinstance(record, RowError):
            raise record
        return self._hooks.rows(record)

    def _learn(self, source: Source) -> _Known | None:
        """The format of a source, by the first row that shows one; marking it teaches the marker its template."""
        for number, raw in islice(raw_records(source), LOOKED_AT):
            try:
                for record in (records := self._records(raw)):
                    known = _Known(number, *reader_for(source, record))
                    with suppress(RowError):  # said when its turn comes
                        for row in self._rows(source, number, records, known):
                            self.marker.mark(row, source.loss)
                    return known
            except RowError:
                continue
        return None


def _packed(rows: Sequence[tuple[Encoded, str]], tally: Tally, bos_id: int | None) -> Prepared:
    """As it is stored and sent: arrays, which cost nothing to hand over."""
    if not rows:
        return Prepared(None, digests([]), tally)
    table = table_of(rows)
    offsets = numbers_in(table["input_ids"].offsets)
    ids, labels = (numbers_in(table[name].values) for name in ("input_ids", "labels"))
    lengths = np.diff(offsets)
    tally.rows, tally.tokens, tally.trained = len(rows), len(ids), int(numbers_in(table["trained"]).sum())
    tally.longest, tally.largest_id = int(lengths.max()), int(ids.max())
    if bos_id is not None:
        counts, of = np.unique(np.add.reduceat(ids == bos_id, offsets[:-1], dtype=np.int32), return_counts=True)
        tally.bos.update(dict(zip(counts.tolist(), of.tolist(), strict=True)))
    ends = offsets.tolist()
    same = digests(digest(ids[start:end], labels[start:end]) for start, end in pairwise(ends))
    return Prepared(table, same, tally)
