"""What was met in the rows, counted: tallies of parts of the data add up to that of the whole, in flat memory."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

SHOWN_ROWS = 5
KINDS = 200  # of reasons that are counted each by itself
OTHER_KIND = "other reasons"
OVERLONG, CUT = "overlong", "nothing left to train after cutting"
LEFT_OUT = "left out by hooks"
KIND_CHARS = 100
_DETAIL = re.compile(r" \(.*|; .*")  # behind the first words of a reason
_NUMBER = re.compile(r"\d+")


@dataclass
class Faults:
    """Rows that cannot be used: the first of them with their places, all of them by kind."""

    rows: int = 0
    shown: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, reason: str) -> None:
        self.rows += 1
        if len(self.shown) < SHOWN_ROWS:
            self.shown.append(f"{place}: {reason}")
        self._count(_kind(reason), 1)

    def merge(self, later: "Faults") -> None:
        self.rows += later.rows
        self.shown += later.shown[: SHOWN_ROWS - len(self.shown)]
        for kind, rows in later.kinds.items():
            self._count(kind, rows)

    def _count(self, kind: str, rows: int) -> None:
        self.kinds[kind if kind in self.kinds or len(self.kinds) < KINDS else OTHER_KIND] += rows


def _kind(reason: str) -> str:
    """A reason without what differs from row to row."""
    return _NUMBER.sub("N", _DETAIL.sub("", reason))[:KIND_CHARS]


@dataclass
class Tally:
    """Of the rows for training, or of those for evaluation. A row of the data may become several prepared ones."""

    # as the data hold them
    seen: int = 0
    targets: int = 0
    lengths: Counter[int] = field(default_factory=Counter)  # tokens -> rows
    targets_of: Counter[int] = field(default_factory=Counter)  # tokens of the row -> targets in such rows
    odd: int = 0  # with characters that stand where text was lost
    shared: int = 0  # in which prompt and answer share a token
    must_end: int = 0
    unanswered: int = 0  # that end with a turn which is not the assistant's
    unasked: int = 0  # with an empty prompt
    # what became of those that are too long
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    dropped_targets: int = 0
    truncated: int = 0
    split: int = 0
    parts: int = 0  # that the split ones became
    inside: int = 0  # of these, how many begin in the middle of an answer
    unopened: int = 0  # and how many lack the beginning of their question
    lost: int = 0  # targets of split rows that are in none of their parts
    # as they are prepared
    rows: int = 0
    tokens: int = 0
    trained: int = 0
    longest: int = 0
    largest_id: int = 0
    ended: int = 0  # in which an end-of-turn token is a target
    ends: dict[int, None] = field(default_factory=dict)  # these tokens, in the order they were first met
    met: dict[int, None] = field(default_factory=dict)  # tokens beside the tokenizer's vocabulary that occur in them
    bos: Counter[int] = field(default_factory=Counter)  # BOS tokens in a row -> rows
    rows_of: Counter[int] = field(default_factory=Counter)  # source, by its place -> rows

    def leave_out(self) -> None:
        """A row of the data that the user's own code makes nothing of."""
        self.seen += 1
        self.dropped[LEFT_OUT] += 1

    def merge(self, later: "Tally") -> None:
        for name, more in vars(later).items():
            mine = getattr(self, name)
            if isinstance(mine, dict):
                mine.update(more)  # which adds where it counts
            elif name in ("longest", "largest_id"):
                setattr(self, name, max(mine, more))
            else:
                setattr(self, name, mine + more)


def length_keeping(counts: Mapping[int, int], share: float) -> int:
    """The least length up to which at least `share` of what `counts` counts by length lies; 0 where that is nothing."""
    wanted = share * sum(counts.values())
    kept = 0
    for length in sorted(counts):
        kept += counts[length]
        if kept >= wanted:
            return length
    return 0


def by_powers_of_two(lengths: Mapping[int, int]) -> list[list[int]]:
    """[[upper bound, rows], ...] without gaps: rows of more tokens than the bound before, and at most this one."""
    if not lengths:
        return []
    bins: Counter[int] = Counter()
    for length, rows in lengths.items():
        bins[max(length - 1, 0).bit_length()] += rows
    return [[1 << power, bins[power]] for power in range(min(bins), max(bins) + 1)]
