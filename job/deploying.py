"""The verbs that hand a run to a scheduler: `render` prints what `submit` would submit."""

from dataclasses import replace
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
    click.option("--cpus-per-task", type=click.IntRange(min=1), help="Of a node.  [default: 8]"),
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

    click.echo(script(_batch(run, **given)), nl=False)


@submit.command("slurm")
@click.argument("run")
@with_options(*OPTIONS)
@click.option("--dry-run", is_flag=True, help="Print the script, as `render` does.")
def submit_slurm(run: str, sets: tuple[str, ...], dry_run: bool, **given: Any) -> None:
    """Submit RUN (a RUN.yaml or a run folder) with sbatch, from this folder, and say how to follow it."""
    from job.deploy.slurm import script
    from job.deploy.slurm_submit import following
    from job.deploy.slurm_submit import submit as story

    batch = _batch(run, sets, **given)
    if dry_run:
        click.echo(script(batch), nl=False)
        return
    asked = config_of(run, sets).run if sets and batch.array is None else run  # `ask` takes no --set
    for line in following(batch, story(batch), asked):
        click.echo(line)


def _batch(run: str | None, sets: tuple[str, ...], table: Path | None, **given: Any) -> "Batch":
    """What was asked for, checked. Raises: ConfigError; of RUN's config too."""
    from job.deploy.slurm_options import batch_of, checked, for_run
    from job.deploy.slurm_sets import refuse_bad_tasks, sets_of, tasks

    rows = tasks(table) if table else []
    batch = batch_of(table=table, rows=len(rows), **given)
    arguments = [word for setting in sets for word in ("--set", setting)]
    if run is None:
        return checked(replace(batch, arguments=tuple(arguments)))

    def of_task(number: int, more: tuple[str, ...]) -> "RunConfig":
        return config_of(run, (*sets, *more), {TASK: str(number)} if batch.array else None)

    config = of_task(1, sets_of(rows[0]) if rows else ())
    if table:
        refuse_bad_tasks(table, rows, of_task)
    elif batch.array and config.run == of_task(2, ()).run:
        raise ConfigError(
            f"--array {batch.array}: all tasks have the run {config.run}, and all but one would leave with 77; "
            f"write run: .../${{{TASK}}}, or give --sets FILE"
        )
    return checked(for_run(batch, config, [run, *arguments]))
