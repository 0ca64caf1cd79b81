"""All that `inspect` found, on a terminal or in a file, 80 columns wide or more."""

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from job.inspection import Batch, Inspection
from job.report.example import END_ISOLATE, ISOLATE, example_view, ids_table, without_colour
from job.report.facts import Fact, batch_title, facts, micro_batches
from job.report.heading import heading
from job.report.histogram import histogram
from job.report.visible import has_right_to_left, visible

SHOWN_ROWS, SHOWN_RANKS = 12, 8
MOST_COLUMNS = 120


def show(console: Console, found: Inspection, ids: bool) -> None:
    """The summary, the batch, the example: what matters most comes last, where one looks."""
    plain = without_colour(console)
    if console.width > MOST_COLUMNS:
        console.width = MOST_COLUMNS
    heading(console, "Data", "as the run trains on them" if found["begun"] else "as a run would prepare them now")
    console.print(_facts(facts(found)))
    console.print()
    console.print(Padding(histogram(found["lengths"]["bins"], found["summary"]["rows"]), (0, 0, 0, 2)))
    if warnings := found["summary"]["warnings"]:
        console.print()
        console.print(_warnings(warnings))
    if (batch := found["batch"]) is not None:
        heading(console, "Global batch", "the one of the row below")
        _batch(console, batch, found["example"]["row"], found["layout"]["token_budget"])
    heading(console, "Example", "")
    console.print(example_view(found["example"], plain), highlight=False)
    if ids:
        console.print()
        console.print(ids_table(found["example"]["pieces"]))


def _facts(listed: list[Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for fact in listed:
        table.add_row(f"  {fact.name}", Text(fact.value, "yellow" if fact.odd else ""))
    return table


def _warnings(listed: list[str]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="bold yellow")
    table.add_column(overflow="fold", style="yellow")
    for text in listed:
        table.add_row("  !", Text(text))
    return table


def _batch(console: Console, batch: Batch, example: int, token_budget: int) -> None:
    console.print(Text(batch_title(batch), "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    table.add_column("", no_wrap=True, width=1)
    for name in ("row", "tokens", "trained"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("source", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("begins with", no_wrap=True, overflow="ellipsis", ratio=1)
    listed = batch["rows"]
    shown = listed[:SHOWN_ROWS]
    for row in shown + [row for row in listed[SHOWN_ROWS:] if row["row"] == example][:1]:
        words = visible(row["words"])
        table.add_row(
            "▶" if row["row"] == example else "",
            str(row["row"]),
            f"{row['tokens']:,}",
            f"{row['trained']:,}",
            row["source"],
            f"{ISOLATE}{words}{END_ISOLATE}" if has_right_to_left(words) else words,
            style="bold" if row["row"] == example else "",
        )
    console.print(table, markup=False)
    if len(listed) > table.row_count:
        console.print(Text(f"  and {len(listed) - table.row_count:,} rows more", "dim"))
    console.print()
    lines = micro_batches(batch)
    console.print(Text(f"  laid out in micro-batches of at most {token_budget:,} tokens:", "dim"))
    for line in lines[:SHOWN_RANKS]:
        console.print(Text(f"  {line}"))
    if len(lines) > SHOWN_RANKS:
        console.print(Text(f"  and {len(lines) - SHOWN_RANKS} ranks more", "dim"))
