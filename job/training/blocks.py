"""What a template marks with `{% generation %}` is what is trained, with the end of each turn."""

from collections.abc import Sequence

from job.training.rendering import Renderer, Span
from job.training.rows import Chat, RowError
from job.training.shape import Shape
from job.training.turns import Turns


def block_spans(
    renderer: Renderer, turns: Turns, shape: Shape | None, row: Chat, wanted: Sequence[int]
) -> tuple[str, list[Span]]:
    """(the rendered chat, the spans of the wanted answers). Raises RowError."""
    text, found = renderer.render_blocks(row.messages, row.tools)
    blocks = [_with_end(text, block, shape) for block in _joined(found)]
    answers = [place for place, message in enumerate(row.messages) if message["role"] == "assistant"]
    if list(wanted) != answers:
        if len(blocks) == len(answers):
            blocks = [block for place, block in zip(answers, blocks, strict=True) if place in wanted]
        else:
            # Which answer a block belongs to is not said: where the answer stands tells.
            spans = turns.find(text, row.messages, row.tools, wanted)
            blocks = [block for block in blocks if any(start <= block[0] < end for start, end in spans)]
    blocks = [(start, end) for start, end in blocks if end > start]
    if not blocks:
        raise RowError("the chat template's {% generation %} blocks hold nothing of it, so nothing to learn")
    return text, blocks


def _joined(blocks: Sequence[Span]) -> list[Span]:
    """Blocks that touch are one: what one template writes in two pieces."""
    joined: list[Span] = []
    for start, end in blocks:
        if joined and start <= joined[-1][1] and joined[-1][1] > joined[-1][0]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _with_end(text: str, block: Span, shape: Shape | None) -> Span:
    """With the end of the turn where the template left it out: a model that never sees it trained never stops."""
    start, end = block
    if shape is not None and shape.closer_is_reserved and text.startswith(shape.closer, end):
        return start, end + len(shape.closer)
    return block
