"""A row as the model meets it: what is trained stands out, with colours and without."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from job.inspection import Example, Piece
from job.report.facts import example_title, is_target
from job.report.visible import LEGEND, Span, Stretch, alone, folded, has_right_to_left, stretches

TRAINED, MASKED = "bold green", "dim"
ODD_TRAINED = "bold color(71)"  # every second token, so that one sees where they end
TRAINED_SPECIAL, MASKED_SPECIAL = "bold black on green", "cyan"
OPEN, CLOSE = "⟦", "⟧"
ISOLATE, END_ISOLATE = "\u2068", "\u2069"  # keep what is written from right to left from moving what stands around it
ROW_TOKENS, LESSON_TOKENS = (300, 100), (60, 20)  # that are shown of a longer stretch: its first, its last
SHOWN_LESSONS = 8


def without_colour(console: Console) -> bool:
    return console.no_color or console.color_system is None


def example_view(example: Example, plain: bool) -> RenderableType:
    """The row, its legend, and what it teaches. `plain`: without colours."""
    return Group(
        Text(example_title(example), "bold"),
        _legend(plain),
        "",
        row_text(example["pieces"], plain),
        "",
        *lessons_view(example, plain),
    )


def row_text(pieces: Sequence[Piece], plain: bool) -> Text:
    """All tokens in their order, the masked ones of a long stretch in the middle left out."""
    made = Text()
    inside = False
    for part in folded(pieces, *ROW_TOKENS):
        if isinstance(part, int):
            made.append(f" … {part:,} tokens more … ", "italic")
            continue
        for stretch in stretches(part):
            if plain and stretch.trained != inside:
                made.append(OPEN if stretch.trained else CLOSE)
            inside = stretch.trained
            _append(made, stretch, plain)
        if plain and inside:
            made.append(CLOSE)
            inside = False
    made.rstrip()
    return made


def ids_table(pieces: Sequence[Piece]) -> Table:
    """A line for each token: where it stands, its id, its text, whether it is trained, its label."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("position", "id"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("token", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("label", justify="right", no_wrap=True)
    for piece in pieces:
        style = (TRAINED if piece["trained"] else MASKED) if piece["kind"] != "special" else ""
        several = len(piece["ids"])
        for place, (token, label) in enumerate(zip(piece["ids"], piece["labels"], strict=True)):
            text = Text(_isolated(alone(piece["text"])), style or (TRAINED if piece["trained"] else MASKED_SPECIAL))
            if several > 1:
                text.append(f"  {place + 1} of {several}", "dim")
            position = piece["first"] + place
            mask = Text("trained", "green") if is_target(position, label) else Text("masked", "dim")
            table.add_row(str(position), str(token), text, mask, str(label))
    return table


def lessons_view(example: Example, plain: bool) -> Iterator[RenderableType]:
    """What is trained, a line for each stretch of it."""
    yield Text("The model learns to write", "bold")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    learns = example["learns"]
    for lesson in learns[:SHOWN_LESSONS]:
        first, last = lesson["first"], lesson["last"]
        pieces = [piece for piece in example["pieces"] if first <= piece["first"] <= last]
        shown = Text("")
        for part in folded(pieces, *LESSON_TOKENS):
            if isinstance(part, int):
                shown.append(" … ")
            else:
                for stretch in stretches(part):
                    _append(shown, stretch, plain, one_line=True)
        table.add_row(f"  {first}" if first == last else f"  {first}-{last}", shown)
    yield table if learns else Text("  nothing", "bold red")
    if len(learns) > SHOWN_LESSONS:
        yield Text(f"  and {len(learns) - SHOWN_LESSONS} more stretches", "dim")


def _append(made: Text, stretch: Stretch, plain: bool, one_line: bool = False) -> None:
    parts = [(_style(stretch, span, plain), span.text) for span in stretch.spans]
    if plain and stretch.special:
        parts = [("", f"‹{text}›") for _, text in parts]
    ends_line = parts[-1][1].endswith("\n")
    parts[-1] = (parts[-1][0], parts[-1][1].rstrip("\n"))
    if stretch.right_to_left:
        parts = [("", ISOLATE), *parts, ("", END_ISOLATE)]
    for style, alike in groupby(parts, key=lambda part: part[0]):
        made.append("".join(text for _, text in alike), style)
    if ends_line and not one_line:
        made.append("\n")


def _style(stretch: Stretch, span: Span, plain: bool) -> str:
    if plain:
        return ""
    if stretch.special:
        return TRAINED_SPECIAL if stretch.trained else MASKED_SPECIAL
    if stretch.trained:
        return ODD_TRAINED if span.odd else TRAINED
    return MASKED


def _legend(plain: bool) -> Text:
    legend = Text("  ", "dim")
    if plain:
        legend.append(f"{OPEN}trained{CLOSE} masked  ‹special token›  ")
    else:
        legend.append("trained", f"not dim {TRAINED}").append(", ").append("token by token", f"not dim {ODD_TRAINED}")
        legend.append("  masked  ").append("special token", f"not dim {MASKED_SPECIAL}").append("  ")
    return legend.append(LEGEND)


def _isolated(text: str) -> str:
    return f"{ISOLATE}{text}{END_ISOLATE}" if has_right_to_left(text) else text
