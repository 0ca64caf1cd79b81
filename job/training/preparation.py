"""A batch of rows goes through reading, marking, encoding and the gates; the result depends on that batch alone."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise, takewhile
from typing import Any

import numpy as np
import numpy.typing as npt

from job.training.batching import Batch
from job.training.chat import Marked, Marker
from job.training.dataset import numbers_in, table_of
from job.training.duplicates import Digests, digest, digests
from job.training.encode import Encoded, Encoder
from job.training.files import Raw, parsed, raw_records
from job.training.formats import reader_for
from job.training.gates import Gates
from job.training.hooks import Hooks
from job.training.rows import Chat, Instruction, Pair, Reader, Record, Row, RowError, Source
from job.training.splitting import silence_of
from job.training.tally import Faults, Tally

Numbers = npt.NDArray[np.int32]
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
    has_turns: bool
    asks: bool


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
        self.tokenizer, self._silence = tokenizer, silence_of(tokenizer)
        self._added = np.array(sorted(tokenizer.added_tokens_decoder), np.int32)
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
        gates = Gates(self._max_length, self._overlong, self.encoder.bos_id, self._silence)
        before = self.marker.lost_thoughts
        ready: list[_Ready] = []
        for line, split in zip(batch.lines, batch.splits, strict=True):
            try:
                made = list(self._marked(line, split, done))
            except RowError as reason:
                done.faults.add(self.sources[line[0]].place(line[1]), str(reason))
                continue
            ready += made
            if not made:
                tallies[split].leave_out()
        kept: dict[int, list[tuple[Encoded, str]]] = {split: [] for split in tallies}
        for row, encoded in zip(ready, self.encoder.encode([row.marked for row in ready]), strict=True):
            try:
                if isinstance(encoded, RowError):
                    raise encoded
                used = gates.admit(row.marked, encoded, tallies[row.split], row.has_turns)
            except RowError as reason:
                done.faults.add(self.sources[row.source].place(row.number), str(reason))
                continue
            name = f"{self._names[row.source]}:{row.number}"
            kept[row.split] += [(part, name) for part in used]
            tallies[row.split].rows_of[row.source] += len(used)
            tallies[row.split].unasked += not row.asks
        done.lost_thoughts = self.marker.lost_thoughts - before
        for split, rows in kept.items():
            done.prepared[split] = _packed(rows, tallies[split], self.encoder.bos_id, self._added)
        return done

    def _marked(self, line: tuple[int, int, Raw], split: int, done: Done) -> Iterator[_Ready]:
        source, number, raw = line
        loss = self.sources[source].loss
        for read in self._rows(self.sources[source], number, self._records(raw), self._known[source]):
            row = self._as_used(read)
            done.chat = done.chat or isinstance(row, Chat)
            asks = loss == "all" or _asks(read)
            yield _Ready(source, number, split, self.marker.mark(row, loss), isinstance(read, Chat), asks)

    def _as_used(self, row: Row | Instruction) -> Row:
        if isinstance(row, Instruction):
            return row.pair if self.marker.chat_template is None else row.chat
        return row

    def _rows(
        self, source: Source, number: int, records: Sequence[Record], known: _Known | None
    ) -> Iterator[Row | Instruction]:
        for record in records:
            reader = known.reader if known and number >= known.since else reader_for(source, record)[1]
            yield reader(record)

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


def _asks(row: Row | Instruction) -> bool:
    """Whether something stands before the first answer; plain text is not asked for."""
    if isinstance(row, Pair):
        return bool(row.prompt.strip())
    chat = row.chat if isinstance(row, Instruction) else row
    if not isinstance(chat, Chat):
        return True
    asked = takewhile(lambda message: message["role"] != "assistant", chat.messages)
    return any(str(message.get("content") or "").strip() for message in asked)


def _packed(rows: Sequence[tuple[Encoded, str]], tally: Tally, bos_id: int | None, added: Numbers) -> Prepared:
    """As it is stored and sent: arrays, which cost nothing to hand over."""
    if not rows:
        return Prepared(None, digests([]), tally)
    table = table_of(rows)
    offsets = numbers_in(table["input_ids"].offsets)
    ids, labels = (numbers_in(table[name].values) for name in ("input_ids", "labels"))
    lengths = np.diff(offsets)
    tally.rows, tally.tokens, tally.trained = len(rows), len(ids), int(numbers_in(table["trained"]).sum())
    tally.longest, tally.largest_id = int(lengths.max()), int(ids.max())
    met = np.zeros(max(tally.largest_id, int(added.max(initial=0))) + 1, np.bool_)
    met[ids] = True
    tally.met.update(dict.fromkeys(added[met[added]].tolist()))
    if bos_id is not None:
        counts, of = np.unique(np.add.reduceat(ids == bos_id, offsets[:-1], dtype=np.int32), return_counts=True)
        tally.bos.update(dict(zip(counts.tolist(), of.tolist(), strict=True)))
    ends = offsets.tolist()
    same = digests(digest(ids[start:end], labels[start:end]) for start, end in pairwise(ends))
    return Prepared(table, same, tally)
