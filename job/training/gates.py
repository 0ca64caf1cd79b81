"""No row is used, cut or left out without being counted."""

from job.training.chat import Marked
from job.training.encode import Encoded
from job.training.rows import RowError
from job.training.splitting import Silence, split
from job.training.tally import CUT, OVERLONG, Tally

LOST_TEXT = ("\ufffd", "\0")  # what stands where a decoder did not know on, and what no text holds


class Gates:
    """Lets rows through one by one, and counts. `overlong`: drop, truncate, split or error, beyond `max_length`."""

    def __init__(self, max_length: int, overlong: str, bos_id: int | None, silence: Silence) -> None:
        self._max_length, self._overlong, self._bos_id, self._silence = max_length, overlong, bos_id, silence

    def admit(self, marked: Marked, row: Encoded, tally: Tally, has_turns: bool) -> list[Encoded]:
        """The row as it is used: itself, what is left of it, its parts; nothing when it is left out.

        `has_turns`: the data hold it as turns, which may have weights.
        Raises RowError for a row that nothing can be learnt from, and for a long one where the config says so.
        """
        length, targets = len(row.input_ids), row.trained
        tally.seen += 1
        tally.lengths[length] += 1
        tally.targets += targets
        tally.targets_of[length] += targets
        tally.odd += any(lost in marked.text for lost in LOST_TEXT)
        tally.must_end += marked.must_end
        tally.unanswered += marked.unanswered
        if marked.empty:
            advice = "leave it out, or give its turn weight 0" if has_turns else "remove the row, or fill the column"
            raise RowError(f"an answer is empty, which teaches to say nothing; {advice}")
        if not targets:
            raise RowError("no trained token: what should be learnt is empty")
        used = [row] if length <= self._max_length else self._shortened(row, targets, tally)
        tally.shared += bool(used) and row.shared
        for part in used:
            tally.ended += bool(part.ends)
            tally.ends.update(dict.fromkeys(part.ends))
        return used

    def _shortened(self, row: Encoded, targets: int, tally: Tally) -> list[Encoded]:
        if self._overlong == "error":
            length, most = len(row.input_ids), self._max_length
            raise RowError(f"{length} tokens, more than data.max_length {most} (data.overlong: error)")
        if self._overlong == "drop":
            tally.dropped[OVERLONG] += 1
            tally.dropped_targets += targets
            return []
        if self._overlong == "split":
            made = split(row, self._max_length, self._bos_id, self._silence)
            parts = made.parts
            tally.split += bool(parts)
            tally.parts += len(parts)
            tally.inside += made.inside
            tally.unopened += made.unopened
            tally.lost += made.lost if parts else 0
        else:
            cut = row.cut(self._max_length)
            parts = [cut] if cut.trained else []
            tally.truncated += bool(parts)
        if not parts:
            tally.dropped[CUT] += 1
            tally.dropped_targets += targets
        return parts
