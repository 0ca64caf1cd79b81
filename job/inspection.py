"""What `inspect` finds, as JSON holds it: for the pages, and for who reads --json."""

from typing import Any, Literal, TypedDict


class Piece(TypedDict):
    """What is shown as one: a token, or the tokens that make up a character."""

    first: int  # position in the row of its first token
    ids: list[int]
    labels: list[int]  # -100 where masked
    text: str
    kind: Literal["text", "special", "bytes"]  # bytes: they make no character; the text then is how they are written
    trained: bool  # its last token is a target; the first token of a row never is one


class Lesson(TypedDict):
    """Tokens in a row that are all trained, and their text: what the model learns to write there."""

    first: int
    last: int
    text: str


class Example(TypedDict):
    row: int  # its number among the training rows, from 0
    source: str  # file and line
    tokens: int
    trained: int
    step: int | None  # the first in whose global batch it stands; None: in none of this run
    epoch: int | None  # of that step, from 0
    pieces: list[Piece]
    learns: list[Lesson]


class BatchRow(TypedDict):
    row: int
    source: str
    tokens: int
    trained: int
    words: str  # its first ones, without special tokens


class Batch(TypedDict):
    """The global batch of a step, and how it is laid out: `ranks[rank][micro-batch]` lists row numbers."""

    step: int
    epoch: int  # from 0
    rows: list[BatchRow]
    ranks: list[list[list[int]]]


class Layout(TypedDict):
    """Over the first `steps` steps; the shares are in [0, 1], but for the imbalance."""

    ranks: int
    token_budget: int
    steps: int
    micro_batches: float  # of a rank, on average
    filled: float  # tokens over the budgets of all micro-batches that hold any
    in_full: float  # of the tokens, those in micro-batches that have no room for another row
    imbalance: float  # by how much the most loaded rank exceeds the mean


class Lengths(TypedDict):
    """Tokens of the prepared rows. `bins`: [at least, at most, rows], without gaps."""

    shortest: int
    median: int
    p95: int
    longest: int
    bins: list[tuple[int, int, int]]


class Schedule(TypedDict):
    steps: int
    steps_per_epoch: int
    epochs: float  # in all steps
    epoch_rows: int
    global_batch_size: int


class Examined(TypedDict):
    """What the program writes."""

    example: Example
    more: list[Example]  # the first rows in the order of the steps, where they were asked for
    batch: Batch | None  # the one of `example`
    schedule: Schedule
    layout: Layout
    lengths: Lengths
    ends: list[str]  # the tokens that end an answer


class Inspection(Examined):
    """All of it: what a page shows and --json prints."""

    run: str
    begun: bool  # the rows are those that the run trains on
    base: str
    tokenizer: str
    max_length: int
    summary: dict[str, Any]  # what preparation found, as it lies beside the rows; without the template's text
    chat_template: str | None
