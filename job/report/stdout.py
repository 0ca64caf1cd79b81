"""Where a page for people goes."""

import os
import sys

from rich.console import Console


class _Out(Console):
    """Who closes a pipe (`| head`) has seen enough."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def stdout_console() -> Console:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a script's letters still gets all the rest
    return _Out(file=sys.stdout)
