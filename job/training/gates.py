"""No row is used, cut or left out without being counted, and data that cannot teach is refused."""

from collections import Counter

from job.errors import DataError
from job.training.chat import Marked
from job.training.encode import Encoded

SHOWN_ROWS = 5
OVERLONG, CUT = "overlong", "nothing left to train after cutting"


class Gates:
    """Lets rows through one by one, then gives the verdict on all of them.

    `overlong`: drop, truncate or error, for rows of more than `max_length` tokens.
    """

    def __init__(self, max_length: int, overlong: str) -> None:
        self._max_length, self._overlong = max_length, overlong
        self._bad_rows = 0
        self._shown: list[str] = []
        self._must_end = False
        self.seen = self.truncated = self._shared = 0
        self.dropped: Counter[str] = Counter()
        self.ends: dict[int, None] = {}  # in the order they were first seen

    def bad(self, place: str, reason: str) -> None:
        """One row that cannot be used; its file and line go into the verdict."""
        self._bad_rows += 1
        if len(self._shown) < SHOWN_ROWS:
            self._shown.append(f"{place}: {reason}")

    def admit(self, place: str, marked: Marked, row: Encoded) -> Encoded | None:
        """The row as it is used, or None when it is left out."""
        self.seen += 1
        if not row.trained:
            self.bad(place, "no trained token: what should be learnt is empty")
            return None
        if len(row.input_ids) > self._max_length:
            whole, row = len(row.input_ids), row.cut(self._max_length)
            if self._overlong == "error":
                self.bad(place, f"{whole} tokens, more than data.max_length {self._max_length} (data.overlong: error)")
                return None
            if self._overlong == "drop":
                self.dropped[OVERLONG] += 1
                return None
            if not row.trained:
                self.dropped[CUT] += 1
                return None
            self.truncated += 1
        self._shared += row.shared
        self._must_end = self._must_end or marked.must_end
        self.ends.update(dict.fromkeys(row.ends))
        return row

    def verdict(self, rows: int, eval_rows: int | None) -> list[str]:
        """Lines for the log. `eval_rows`: None where none were asked for. Raises DataError."""
        if self._bad_rows:
            more = f"; and {self._bad_rows - SHOWN_ROWS} more bad rows" if self._bad_rows > SHOWN_ROWS else ""
            raise DataError("; ".join(self._shown) + more)
        if not rows or eval_rows == 0:
            which = "data.train" if not rows else "data.eval"
            reason = "; ".join(self._said()) if self.seen else "the data are empty"
            raise DataError(f"{which}: no row to use: {reason}")
        if self._must_end and not self.ends:
            raise DataError(
                "no end-of-turn token is ever a target, so the model cannot learn to stop: set data.append_eos: true, "
                "a model.chat_template that closes a turn with a special token, or a higher data.max_length"
            )
        return self._said()

    def _said(self) -> list[str]:
        """What happened to how many rows."""
        length = f"longer than data.max_length {self._max_length} tokens"
        said = []
        if count := self.dropped[OVERLONG]:
            said.append(f"{count} of {self.seen} rows left out: {length} (data.overlong: drop)")
        if count := self.dropped[CUT]:
            said.append(f"{count} of {self.seen} rows left out: {length}, and nothing to train in what cutting leaves")
        if self.truncated:
            said.append(f"{self.truncated} of {self.seen} rows cut: {length} (data.overlong: truncate)")
        if self._shared:
            said.append(
                f"in {self._shared} of {self.seen} rows prompt and answer share a token, which is not trained: "
                "let the answer, not the prompt, hold the space between them"
            )
        return said
