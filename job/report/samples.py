"""Samples of the run folder: one `samples/step-<step>.jsonl` per sampling; a replayed step writes its own again."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from job.report.figures import text_figures
from job.storage.store import ObjectStore

Row = dict[str, Any]
COLUMNS = ("prompt", "generation", "distinct_words", "words", "repetition")


def with_figures(rows: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Each row's prompt and generation, and the figures of its generation (`text_figures`)."""
    return [
        {"prompt": row["prompt"], "generation": row["generation"], **text_figures(row["generation"])} for row in rows
    ]


def samples_key(step: int) -> str:
    return f"samples/step-{step:08d}.jsonl"


class Samples:
    """Puts each sampling into the store; one that could not be stored waits for the next flush."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._waiting: dict[int, bytes] = {}

    def add(self, step: int, rows: list[Row]) -> None:
        lines = (json.dumps({"step": step, **row}, ensure_ascii=False) for row in rows)
        self._waiting[step] = "".join(f"{line}\n" for line in lines).encode()

    def flush(self) -> None:
        """Raises what the store raises; what is not stored yet is kept."""
        for step in list(self._waiting):
            body = self._waiting.pop(step)
            try:
                self._store.put(samples_key(step), body)
            except BaseException:
                self._waiting.setdefault(step, body)  # unless newer samples of the step came meanwhile
                raise
