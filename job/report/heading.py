"""The line above each part of a page on the terminal."""

from rich.console import Console
from rich.rule import Rule
from rich.text import Text


def heading(console: Console, title: str, note: str) -> None:
    console.print()
    text = Text(title, "bold")
    if note:
        text.append(f", {note}", "not bold dim")
    console.print(Rule(text, align="left", style="dim"))
