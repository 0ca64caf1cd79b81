"""No row is used, cut or left out without being counted."""

from job.training.chat import Marked
from job.training.encode import Encoded
from job.training.rows import RowError
from job.training.splitting import parts_of
from job.training.tally import CUT, OVERLONG, Tally

LOST_TEXT = ("\ufffd", "\0")  # what stands where a decoder did not know on, and what no text holds


class Gates:
    """Lets rows through one by one, and counts. `overlong`: drop, truncate, split or error, beyond `max_length`."""

    def __init__(self, max_length: int, overlong: str, bos_id: int | None = None) -> None:
        self._max_length, self._overlong, self._bos_id = max_length, overlong, bos_id

    def admit(self, marked: Marked, row: Encoded, tally: Tally) -> list[Encoded]:
        """The row as it is used: itself, what is left of it, its parts; nothing when it is left out.

        Raises RowError for a row that nothing can be learnt from, and for a long one where the config says so.
        """
        length, targets = len(row.input_ids), row.trained
        tally.seen += 1
        tally.lengths[length] += 1
        tally.targets += targets
        tally.targets_of[length] += targets
        tally.odd += any(lost in marked.text for lost in LOST_TEXT)
        tally.must_end += marked.must_end
        if marked.empty:
            raise RowError("an answer is empty, which teaches to say nothing; leave it out, or give its turn weight 0")
        if not targets:
            raise RowError("no trained token: what should be learnt is empty")
        used = [row] if length <= self._max_length else self._shortened(marked, row, targets, tally)
        tally.shared += bool(used) and row.shared
        for part in used:
            tally.ended += bool(part.ends)
            tally.ends.update(dict.fromkeys(part.ends))
        return used

    def _shortened(self, marked: Marked, row: Encoded, targets: int, tally: Tally) -> list[Encoded]:
        if self._overlong == "error":
            length, most = len(row.input_ids), self._max_length
            raise RowError(f"{length} tokens, more than data.max_length {most} (data.overlong: error)")
        if self._overlong == "drop":
            tally.dropped[OVERLONG] += 1
            tally.dropped_targets += targets
            return []
        if self._overlong == "split":
            parts = parts_of(row, self._max_length, marked.chat, self._bos_id)
            tally.split += bool(parts)
            tally.parts += len(parts)
        else:
            cut = row.cut(self._max_length)
            parts = [cut] if cut.trained else []
            tally.truncated += bool(parts)
        if not parts:
            tally.dropped[CUT] += 1
            tally.dropped_targets += targets
        return parts
