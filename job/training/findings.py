"""All that was met while the data were prepared, put together batch by batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from job.training.batching import EVAL, SPLITS, TRAIN
from job.training.dataset import PreparedRows
from job.training.duplicates import Digests, Pair, overlap, repeats
from job.training.preparation import Done
from job.training.rows import Source
from job.training.tally import Faults, Tally

File = tuple[str, str]  # the field of the config that names it, its name there


class Findings:
    """Of the splits that were asked for, in the order of their numbers."""

    def __init__(self, splits: int) -> None:
        self.faults = Faults()
        self.tallies = [Tally() for _ in range(splits)]
        self.lines = self.lost_thoughts = 0
        self.chat = False
        self.duplicates = self.overlap = 0
        self._digests: list[list[Digests]] = [[] for _ in range(splits)]

    @property
    def train(self) -> Tally:
        return self.tallies[TRAIN]

    @property
    def evaluation(self) -> Tally:
        """Empty where no evaluation was asked for."""
        return self.tallies[EVAL] if len(self.tallies) > EVAL else Tally()

    def add(self, done: Done) -> None:
        self.lines += done.lines
        self.lost_thoughts += done.lost_thoughts
        self.chat = self.chat or done.chat
        self.faults.merge(done.faults)
        for split, prepared in done.prepared.items():
            self.tallies[split].merge(prepared.tally)
            self._digests[split].append(prepared.digests)

    def by_field(self) -> dict[str, Tally]:
        """The tallies by the field of the config that names the data."""
        return {f"data.{SPLITS[split]}": tally for split, tally in enumerate(self.tallies)}

    def sources(self, sources: Sequence[Source], formats: Sequence[str | None]) -> list[dict[str, Any]]:
        """What became of each file, for the summary."""
        return [
            {
                "uri": source.uri,
                "bytes": source.path.stat().st_size,
                "format": formats[place],
                "weight": source.weight,
                "rows": self.train.rows_of[place],
                "eval_rows": self.evaluation.rows_of[place],
            }
            for place, source in enumerate(sources)
        ]

    def look_for_repeats(self, folder: Path, files: Sequence[File]) -> list[str]:
        """Counts rows that occur more than once; says so with the places of the first.

        The rows lie in `folder`; `files`: of all sources, in their order.
        """
        train, *rest = [np.concatenate(parts) if parts else np.zeros(0, np.uint64) for parts in self._digests]
        said = []
        found = repeats(train)
        self.duplicates = found.rows
        if found.first:
            where = self._places(folder, (TRAIN, TRAIN), found.first, files)
            said.append(
                f"{found.rows} of {len(train)} rows are the same as an earlier one, token for token ({where}): "
                "the model learns them by heart the sooner"
            )
        for evaluation in rest:
            both = overlap(evaluation, train)
            self.overlap = both.rows
            if both.first:
                where = self._places(folder, (EVAL, TRAIN), both.first, files)
                said.append(
                    f"{both.rows} of {len(evaluation)} evaluation rows stand among the training rows too ({where}): "
                    "eval_loss will look better than it is"
                )
        return said

    def _places(self, folder: Path, splits: tuple[int, int], pair: Pair, files: Sequence[File]) -> str:
        """Of two rows that are the same: what a file's name alone does not tell apart is told by the rest."""
        name, other = (PreparedRows(folder, SPLITS[split]).source(row) for split, row in zip(splits, pair, strict=True))
        if name != other:
            return f"the first: {name}, as {other}"
        places = [self._source(split, row) for split, row in zip(splits, pair, strict=True)]
        if places[0] == places[1]:
            return f"the first: two parts of {name}"
        (field, uri), (other_field, other_uri) = (files[place] for place in places)
        if uri == other_uri:
            named = f"twice in {field}" if field == other_field else f"in {other_field} and in {field}"
            return f"the first: {name}; {uri} is named {named}"
        number = name.rpartition(":")[2]
        return f"the first: {uri}:{number}, as {other_uri}:{number}"

    def _source(self, split: int, row: int) -> int:
        """The place of the source of a prepared row: rows stand in the order of their sources."""
        for place, rows in sorted(self.tallies[split].rows_of.items()):
            if row < rows:
                return place
            row -= rows
        raise IndexError(row)
