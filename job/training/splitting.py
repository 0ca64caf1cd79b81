"""A row that is too long becomes several: its tokens in order, each trained token a target in exactly one of them.

A chat is cut behind an answer where one ends in time, anything else after as many tokens as fit. What follows a cut
begins as the row does, with BOS; without one, and where an answer goes on, the last token before the cut stands there
again to predict from. Neither is trained. Parts in which nothing is trained are left out.
"""

from collections.abc import Sequence

from job.training.encode import MASKED, Encoded


def parts_of(row: Encoded, max_length: int, chat: bool, bos_id: int | None) -> list[Encoded]:
    """Rows of at most `max_length` tokens; their trained tokens are those of `row`. None where that is below 2."""
    if max_length < 2:
        return []
    ids, labels = row.input_ids, row.labels
    beginning = ids[:1] if bos_id is not None and ids[:1] == [bos_id] else []
    borders = _answer_ends(labels) if chat else []
    parts = []
    start = 0
    while start < len(ids):
        context = beginning if start else []
        if start and not beginning and labels[start] != MASKED:
            context = ids[start - 1 : start]
        end = min(len(ids), start + max_length - len(context))
        if end < len(ids):
            end = max((border for border in borders if start < border <= end), default=end)
        trained = [MASKED] * len(context) + labels[start:end]
        ends = tuple(token for token in row.ends if token in trained)
        part = Encoded(context + ids[start:end], trained, ends, row.shared)
        if part.trained:
            parts.append(part)
        start = end
    return parts


def _answer_ends(labels: Sequence[int]) -> list[int]:
    """Where a trained stretch is over: places of the first token behind one."""
    return [at for at in range(1, len(labels)) if labels[at] == MASKED != labels[at - 1]]
