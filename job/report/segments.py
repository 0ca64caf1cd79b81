"""Events of an attempt, kept as numbered segments: object stores cannot append, so each flush writes the next object.

A segment's number is used up only when its object is stored. Until then its lines wait, and later lines join them.
"""

import json
from collections.abc import Mapping
from typing import Any

from job.storage.store import ObjectStore

_KEPT = ("step", "evaluation", "samples", "snapshot", "commit", "restart", "not_finite")


def segment_key(attempt: int, number: int) -> str:
    return f"events/{attempt:04d}-{number:05d}.jsonl"


class Segments:
    """Writes `events/<attempt>-<number>.jsonl`, one JSON object per line, each with `time` (Unix seconds)."""

    def __init__(self, store: ObjectStore, attempt: int) -> None:
        self._store, self._attempt = store, attempt
        self._number = 1
        self._waiting: list[str] = []

    def add(self, event: Mapping[str, Any], time_seconds: float) -> None:
        """Keep an event for the next flush; unlogged steps and kinds that nobody looks up later are left out."""
        if event["kind"] not in _KEPT or (event["kind"] == "step" and not event.get("logged", True)):
            return
        kept = {name: value for name, value in event.items() if name != "logged"}
        if "rows" in kept:  # the texts lie in samples/
            texts = ("prompt", "generation")
            kept["rows"] = [{k: v for k, v in row.items() if k not in texts} for row in kept["rows"]]
        self._waiting.append(json.dumps({**kept, "time": round(time_seconds, 3)}, ensure_ascii=False))

    def flush(self) -> None:
        """Store what waits as the next segment. Raises what the store raises; nothing is lost then."""
        if not self._waiting:
            return
        lines = len(self._waiting)  # more may be added by another thread meanwhile
        body = "".join(f"{line}\n" for line in self._waiting[:lines])
        self._store.put(segment_key(self._attempt, self._number), body.encode())
        del self._waiting[:lines]
        self._number += 1
