"""The verbs, and the only place that exits. Nothing heavy is imported before a verb needs it."""

import contextlib
import json
import sys
import traceback
from pathlib import Path

import click

from job import __version__
from job.argument import SETS, config_of
from job.deploying import render, submit
from job.deploying_cloud import VERBS as CLOUDS
from job.deploying_k8s import render_k8s, submit_k8s
from job.errors import ConfigError, ExitCode, JobError, no_space, node_rank_of, unprinted
from job.machine import HOME
from job.outcome import tell_outcome


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sft-job")
def cli() -> None:
    """Supervised fine-tuning as a batch job: pull, train, checkpoint, get preempted, go on."""


@cli.command()
@click.argument("run")
@SETS
@click.option("--take-over", is_flag=True, help="Claim the run even if another job seems to be running it.")
@click.option("--try-again", is_flag=True, help="Run even though the last attempts all died without a new commit.")
def run(run: str, sets: tuple[str, ...], take_over: bool, try_again: bool) -> None:
    """Finish RUN (a RUN.yaml or a run folder), or leave it further along.

    The same command again goes on from the last commit; there is no resume flag.
    """
    from job.host.preemption import hold_stop_signals

    hold_stop_signals()
    config = config_of(run, sets)
    from job import run as story
    from job.report.progress import stderr_console

    story.run(config, stderr_console(), take_over, try_again)


@cli.command()
@click.argument("run")
@SETS
def pull(run: str, sets: tuple[str, ...]) -> None:
    """Pull everything RUN needs into this machine's cache (SFT_JOB_HOME); the run then needs only its store."""
    config = config_of(run, sets)
    from job import run as story
    from job.report.progress import stderr_console

    story.pull(config, stderr_console())


@cli.command()
@click.argument("run")
@click.argument("prompt")
@click.option("--max-new-tokens", default=100, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=0.0, show_default=True, type=click.FloatRange(min=0), help="0 is greedy.")
@click.option("--top-p", default=1.0, show_default=True, type=click.FloatRange(min=0, max=1, min_open=True))
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
def ask(run: str, prompt: str, max_new_tokens: int, temperature: float, top_p: float, device: str) -> None:
    """Ask the tuned model of RUN (a RUN.yaml or a run folder); only the new text goes to stdout."""
    from job.answer import answer

    code = answer(run, prompt, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, device=device)
    if code:
        sys.exit(code)


@cli.command()
@click.argument("run")
@click.option("--deep", is_flag=True, help="Also load every checkpoint's tensors, and the result as a model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def verify(run: str, deep: bool, as_json: bool) -> None:
    """Check all commits and the result of RUN (a RUN.yaml or a run folder) by their hashes. Nothing is written."""
    from job.verify import verify as story

    story(run, deep=deep, as_json=as_json)


@cli.command()
@click.argument("run")
@SETS
@click.option("--row", metavar="N", type=click.IntRange(min=0), help="A training row, from 0; default: step 1's first.")
@click.option("--ids", is_flag=True, help="Also a table of the row's tokens: position, id, text, label.")
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path), help="Write it all, and more rows, as one HTML page."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def inspect(run: str, sets: tuple[str, ...], row: int | None, ids: bool, html: Path | None, as_json: bool) -> None:
    """Show what RUN (a RUN.yaml or a run folder) trains on: which tokens of a row, in which step, and all in figures.

    Needs neither a GPU nor the weights. Bad data end as in `run`.
    """
    from job.host.preemption import hold_stop_signals

    hold_stop_signals()
    config = config_of(run, sets)
    from job.inspected import inspect as story

    story(config, row=row, ids=ids, html=html, as_json=as_json)


@cli.command()
@click.argument("run")
@SETS
@click.option("--gpus-per-node", metavar="COUNTxNAME-GB", help="Of a machine not at hand, like 8xH100-80.")
@click.option("--nodes", type=click.IntRange(min=1), help="How many of them; default: as this job has.")
@click.option("--launch", is_flag=True, help="Also each rank's command and environment.")
@click.option("--deepspeed", is_flag=True, help="Also the DeepSpeed config, where the strategy has one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def plan(
    run: str,
    sets: tuple[str, ...],
    gpus_per_node: str | None,
    nodes: int | None,
    launch: bool,
    deepspeed: bool,
    as_json: bool,
) -> None:
    """Plan RUN (a RUN.yaml or a run folder): memory, steps, hours, checkpoints, grace, disk.

    No weights are pulled, and the run folder is only read.
    """
    from job.host.preemption import hold_stop_signals

    hold_stop_signals()
    config = config_of(run, sets)
    from job.planned import plan as story

    story(config, gpus_per_node=gpus_per_node, nodes=nodes, launch=launch, deepspeed=deepspeed, as_json=as_json)


@cli.command()
@click.argument("run", metavar="RUN[@STEP]")
@click.option("--to", required=True, metavar="NEW", help="The new run folder: s3://bucket/prefix or a path.")
@SETS
def fork(run: str, to: str, sets: tuple[str, ...]) -> None:
    """Make NEW a run that goes on from a commit of RUN (a RUN.yaml or a run folder) under a changed config.

    Optimizer state and position are kept. Without a step: from the newest commit. Prints the command to run NEW.
    """
    from job.host.preemption import hold_stop_signals

    hold_stop_signals()
    from job.fork import fork as story
    from job.report.progress import stderr_console

    story(run, to, sets, stderr_console())


@cli.command()
@click.option("--store", metavar="URI", help="s3://bucket/prefix, a path, or a RUN.yaml: where a run folder would be.")
@click.option("--gpu", is_flag=True, help="Also try each GPU, and what connects them, by a program.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Of the ranks that --gpu starts.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(store: str | None, gpu: bool, device: str | None, as_json: bool) -> None:
    """Probe whether a run could start on this machine and live in a store, and print the least S3 policy it needs."""
    from job.doctor.story import doctor as story

    story(store, as_json, gpu, device)


@cli.command()
@click.option("--store", metavar="URI", help="s3://bucket/prefix, a path, or a RUN.yaml; default: a folder here.")
@click.option("--quick", is_flag=True, help="The 11 experiments that tell most, in a few minutes.")
@click.option("--only", multiple=True, metavar="PHASE[:SIGNAL]", help="Only these, like --only mid-upload:KILL.")
@click.option("--json", "report", metavar="FILE", help="Write a report, to stdout where FILE is -.")
def drill(store: str | None, quick: bool, only: tuple[str, ...], report: str | None) -> None:
    """Kill a tiny job in every phase, on this machine and your store, and see that nothing is ever lost."""
    from job.drill.story import drill as story

    story(store, quick, only, report)


@cli.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
def demo(folder: Path | None) -> None:
    """Tune a tiny model made on the spot, preempt it once, resume it, ask it. No network, GPU or server."""
    from job.demo import demo as story

    story(folder)


@cli.command()
def schema() -> None:
    """Print the JSON schema of RUN.yaml."""
    from job.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


for command in (render_k8s, *CLOUDS):
    render.add_command(command)
submit.add_command(submit_k8s)
cli.add_command(render)
cli.add_command(submit)


def main() -> None:
    """Run a verb; the last line on stderr is the cause of a failure, the exit code its kind."""
    try:
        cli.main(prog_name="sft-job", standalone_mode=False)
        tell_outcome(ExitCode.DONE, "done")
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        tell_outcome(code, "done" if code == ExitCode.DONE else "see the lines above")
        raise
    except JobError as error:
        _fail(error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        _fail(ConfigError("no verb was given"))
    except click.UsageError as error:
        hint = f" (try '{error.ctx.command_path} --help')" if error.ctx else ""
        _fail(ConfigError(f"{error.format_message()}{hint}"))
    except (click.Abort, KeyboardInterrupt):
        tell_outcome(ExitCode.STOPPED, "interrupted")
        sys.exit(ExitCode.STOPPED)
    except click.ClickException as error:
        _fail(ConfigError(error.format_message()))
    except OSError as error:
        _fail(unprinted(error) or no_space(error, HOME) or _bug(error))
    except Exception as error:
        _fail(_bug(error))


def _bug(error: Exception) -> JobError:
    """All of it, then the one line that schedulers and people look for."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return JobError(f"{type(error).__name__}: {error}")


def _fail(error: JobError) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone; the exit code still has to be right
        click.echo(f"sft-job: {error}", err=True)
    tell_outcome(error.exit_code, str(error), node_rank_of(error))
    sys.exit(int(error.exit_code))
