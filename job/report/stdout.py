"""Where a page for people goes."""

import os
import sys

from rich.console import Console

FILE_COLUMNS = 120  # in a log no column of a table is to be cut


class _Out(Console):
    """Who closes a pipe (`| head`) has seen enough."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a script's letters still gets all the rest
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return _Out(file=sys.stdout)
    return _Out(file=sys.stdout, width=FILE_COLUMNS)
