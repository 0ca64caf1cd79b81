"""What preparation found, in `summary.json` beside the rows: for the log, for later attempts, and for who looks on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job.rundir import write_atomically


@dataclass(frozen=True)
class Summary:
    """Where nothing else is said, of the rows for training as they are prepared."""

    fingerprint: str
    formats: list[str]  # of the sources, in their order, each once
    rows: int
    eval_rows: int
    tokens: int
    trained_tokens: int  # targets among them
    longest_row: int  # tokens; evaluation too
    largest_id: int  # of any token, evaluation too: the model must have an embedding for it
    dropped: dict[str, int]  # reason -> rows of the data, training and evaluation together
    truncated: int  # rows of the data, likewise
    warnings: list[str]  # lines for the log
    end_of_turn_ids: list[int]  # what ends an answer in training: generation must stop at each of them
    bos_per_row: list[int]  # [fewest, most]; empty where the tokenizer has no BOS of its own
    vocab_size: int
    chat: bool
    chat_template: str | None  # the text, where chats were rendered or the config gave one
    epoch_rows: int = 0  # of one epoch: `rows`, unless sources have weights
    parts: list[list[float]] = field(default_factory=list)  # [rows, weight] of each source; empty where none has one
    seen: int = 0  # rows of the data, training and evaluation together: what `dropped` and the like are a share of
    split: int = 0  # of these, how many became several
    eval_tokens: int = 0
    eval_trained_tokens: int = 0
    end_of_turn_rate: float = 0.0  # share of rows in which an end-of-turn token is a target
    lengths: list[list[int]] = field(default_factory=list)  # [[at most so many tokens, rows of the data], ...]
    duplicates: int = 0  # rows that are the same as an earlier one
    overlap: int = 0  # evaluation rows that stand among the training rows
    steps: int = 0  # optimizer steps of the whole run
    sources: list[dict[str, Any]] = field(default_factory=list)  # uri, bytes, format, weight, rows, eval_rows

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(asdict(self), ensure_ascii=False, indent=1))

    @staticmethod
    def read(path: Path) -> "Summary":
        return Summary(**json.loads(path.read_text(encoding="utf-8")))
