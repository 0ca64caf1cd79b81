"""How long the rows are, as bars of text."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

_EIGHTHS = " ▏▎▍▌▋▊▉"
_BAR_CELLS = 40


def bar(share: float, cells: int = _BAR_CELLS) -> str:
    """`share` of `cells`, to an eighth of a cell; never nothing where there is something."""
    eighths = max(round(share * cells * 8), 1 if share > 0 else 0)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def histogram(bins: Sequence[Sequence[int]], total: int) -> Table:
    """`bins`: [at least, at most, rows] each, at least one with rows; fits 80 columns."""
    most = max(rows for _, _, rows in bins)
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, width=_BAR_CELLS)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row(Text("tokens", "dim"), "", Text("rows", "dim"), "")
    for least, greatest, rows in bins:
        name = f"{least:,}" if least == greatest else f"{least:,}-{greatest:,}"
        table.add_row(name, Text(bar(rows / most), "cyan"), f"{rows:,}", Text(percent(rows / total), "dim"))
    return table


def percent(share: float) -> str:
    """A share as it can be trusted: neither 0% nor 100% unless it is exactly that."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    if share < 0.01 or share > 0.99:
        return f"{min(max(share, 0.0001), 0.9999):.2%}"
    return f"{share:.0%}"
