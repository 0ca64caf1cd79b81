"""RUN and --set, which mean the same to every verb. Nothing heavy is imported before a verb needs it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from job.config import RunConfig

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
SETS = click.option(
    "--set", "sets", multiple=True, metavar="PATH=VALUE", help="Set a field, like --set train.epochs=1."
)


VARIABLE = "env:"  # RUN as a variable's name


def with_options(*options: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """A verb with options that several verbs have, in this order in its help."""

    def decorate(verb: Decorated) -> Decorated:
        for option in reversed(options):
            verb = option(verb)
        return verb

    return decorate


def config_of(run: str, sets: tuple[str, ...], variables: Mapping[str, str] | None = None) -> "RunConfig":
    """The config of RUN. A RUN.yaml is read before anything else is imported: a mistake in it is told at once.

    `env:NAME` is the RUN.yaml that the variable holds, for services that hand over no files. `variables` are
    those that it will have there besides the ones here, which they come before. Raises: ConfigError.
    """
    known = {**os.environ, **(variables or {})}
    if run.startswith(VARIABLE):
        from job.config import load_text
        from job.errors import ConfigError

        name = run.removeprefix(VARIABLE)
        if name not in os.environ:
            raise ConfigError(f"{run}: the variable {name} is not set; it holds the text of a RUN.yaml")
        return load_text(os.environ[name], run, sets, known)
    if run.endswith((".yaml", ".yml")):
        from job.config import load_config

        return load_config(Path(run), sets, known)
    from job.settled import load

    return load(run, sets, known)
