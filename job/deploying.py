"""The verbs that hand a run to a scheduler: `render` prints what `submit` would submit."""

import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from job.argument import SETS, config_of, with_options
from job.errors import ConfigError

if TYPE_CHECKING:
    from job.config import RunConfig
    from job.deploy.slurm import Batch

TASK = "SLURM_ARRAY_TASK_ID"  # a config may name it; it is set in the job only


@click.group()
def render() -> None:
    """Print what a scheduler would be given."""


@click.group()
def submit() -> None:
    """Give a run to a scheduler."""


OPTIONS = (
    SETS,
    click.option("--nodes", metavar="N", help="Or a range: 2-4.  [default: 1]"),
    click.option("--gpus-per-node", metavar="[TYPE:]N", help="0 on CPUs.  [default: 1]"),
    click.option("--gres", metavar="LIST", help="Instead of --gpus-per-node, where the site wants that."),
    click.option("--cpus-per-task", type=click.IntRange(1, 65533), help="Of a node.  [default: 8]"),
    click.option("--mem", metavar="SIZE", help="Of a node."),
    click.option("--time", metavar="LIMIT", help="Of one life; the job comes back after it.  [default: 04:00:00]"),
    click.option("--partition", metavar="NAME"),
    click.option("--account", metavar="NAME"),
    click.option("--qos", metavar="NAME"),
    click.option("--constraint", metavar="LIST"),
    click.option("--job-name", metavar="NAME"),
    click.option("--output", metavar="PATTERN", help="Of the log.  [default: %x-%j.out; of an array %x-%A_%a.out]"),
    click.option("--array", metavar="TASKS", help="Several runs; RUN or --sets tells them apart."),
    click.option("--sets", "table", metavar="FILE", type=click.Path(path_type=Path), help="Line N: options of task N."),
    click.option(
        "--runtime", metavar="KIND:PLACE", help="venv:, module:, apptainer:, pyxis: or oci:; default: on PATH."
    ),
    click.option("--bind", metavar="PATHS", help="Further folders for a container."),
    click.option("--extra", multiple=True, metavar="OPTION", help="Any option of sbatch, like --extra=--exclusive."),
)


@render.command("slurm")
@click.argument("run", required=False)
@with_options(*OPTIONS)
def render_slurm(run: str | None, **given: Any) -> None:
    """Print the batch script; with RUN (a RUN.yaml or a run folder), of that run."""
    from job.deploy.slurm import script

    click.echo(script(_batch(run, **given)[0]), nl=False)


@submit.command("slurm")
@click.argument("run")
@with_options(*OPTIONS)
@click.option("--dry-run", is_flag=True, help="Print the script, as `render` does.")
def submit_slurm(run: str, sets: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Submit RUN (a RUN.yaml or a run folder) with sbatch, from this folder, and say how to follow it."""
    from job.deploy.slurm import script
    from job.deploy.slurm_submit import following
    from job.deploy.slurm_submit import submit as story

    batch, config = _batch(run, sets, **given)
    if dry_run:
        click.echo(script(batch), nl=False)
        return
    asked = config.run if config and sets else batch.arguments[0]  # `ask` takes no --set
    for line in following(batch, story(batch), asked):
        click.echo(line)


def _batch(
    run: str | None, sets: tuple[str, ...], table: Path | None, **given: Any
) -> "tuple[Batch, RunConfig | None]":
    """What was asked for, checked, and RUN's config; of an array its first task's. Raises: ConfigError."""
    from job.deploy.slurm_options import batch_of, checked, for_run, told_grace_seconds
    from job.deploy.slurm_sets import configs_of, lines_of
    from job.deploy.slurm_values import tasks

    lines = lines_of(table) if table else []
    batch = batch_of(table=table, rows=len(lines), **given)
    arguments = [word for setting in sets for word in ("--set", setting)]
    if run is None:
        grace = told_grace_seconds(os.environ) or batch.grace_seconds
        return checked(replace(batch, grace_seconds=grace, arguments=tuple(arguments))), None
    run = f"./{run}" if run.startswith("-") else run  # the job's command line has it among options

    def of_task(number: int, more: tuple[str, ...] = ()) -> "RunConfig":
        return config_of(run, (*sets, *more), {TASK: str(number)} if batch.array else None)

    numbers = chain(*tasks(batch.array)) if batch.array else iter([1])
    if table:
        configs = configs_of(table, lines, dict.fromkeys(numbers), of_task)
    else:
        first = next(numbers)
        second = next((number for number in numbers if number != first), first)
        configs = [of_task(number) for number in dict.fromkeys((first, second))]  # the others' differ as little
        if len({config.run for config in configs}) < len(configs):
            raise ConfigError(
                f"--array {batch.array}: all tasks have the run {configs[0].run}, and all but one would leave with 77; "
                f"write run: .../${{{TASK}}}, or give --sets FILE"
            )
    return checked(for_run(batch, configs, [run, *arguments], os.environ)), configs[0]
