"""What a person may ask of a batch script, checked before sbatch: its own answers come late or not at all."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from job.config import RunConfig
from job.config.values import duration_seconds
from job.deploy.grace import grace_seconds
from job.deploy.slurm import SLACK_SECONDS, Batch
from job.deploy.slurm_extra import INSTEAD, OURS, option_name, refuse_extra
from job.deploy.slurm_values import MINUTE, refuse_value, tasks, time_seconds
from job.errors import ConfigError

ARRAY_OUTPUT = "%x-%A_%a.out"
START_SECONDS = 120  # from a job's start to the first steps, at the least
MARGIN_SECONDS = 60  # after the longest wait for a node
MOST_LEAD_SECONDS = 65535  # man sbatch, --signal
GRACE = "SFT_JOB_GRACE"
RUNTIME = r"(venv|module|apptainer|pyxis|oci):[^~].*"


def checked(batch: Batch) -> Batch:
    """The same, all values well-formed. Raises: ConfigError, naming the option and what it takes."""
    for name in (option.replace("-", "_") for option in OURS if option != "time"):
        if isinstance(value := getattr(batch, name), str):
            refuse_value(name, value)
    for name in ("runtime", "bind", "sets"):
        _one_line(f"--{name}", getattr(batch, name) or "")
    if batch.runtime is not None and not re.fullmatch(RUNTIME, batch.runtime):
        raise ConfigError(
            f"--runtime is {batch.runtime!r}: give venv:/path, module:name[,name], apptainer:image.sif, pyxis:image or "
            "oci:/bundle; leave it out where sft-job is on PATH"
        )
    for last, word in zip(("", *batch.arguments), batch.arguments, strict=False):
        _one_line("--set" if last == "--set" else "RUN", word)
    for option in batch.extra:
        _one_line("--extra", option)
        refuse_extra(option)
    _refuse_times(batch)
    return batch


def _refuse_times(batch: Batch) -> None:
    if batch.lead_seconds > MOST_LEAD_SECONDS:
        raise ConfigError(
            f"a grace of {batch.grace_seconds} s is more than Slurm's signal can come before the end, which is "
            f"{MOST_LEAD_SECONDS - SLACK_SECONDS} s here; make it shorter"
        )
    if (seconds := time_seconds(batch.time)) is not None and seconds < (least := batch.lead_seconds + START_SECONDS):
        raise ConfigError(
            f"--time {batch.time} is over before there is a step: a start takes a minute or two, and the last "
            f"{batch.lead_seconds} s are for the last checkpoint (grace, and a minute for Slurm); "
            f"give at least {ceil(least / MINUTE)} minutes"
        )


def batch_of(
    table: Path | None,
    rows: int,
    gpus_per_node: str | None,
    gres: str | None,
    array: str | None,
    output: str | None,
    extra: Sequence[str],
    **given: str | int | None,
) -> Batch:
    """What was asked for, on top of the usual. `table` has `rows` lines, one for each task. Raises: ConfigError."""
    if gpus_per_node is not None and gres is not None:
        raise ConfigError("--gpus-per-node and --gres both say how many GPUs a node has: give one")
    if gpus_per_node == "" or array == "" or output == "":
        raise ConfigError("--gpus-per-node, --array or --output is empty: give a value; 0 GPUs for a run on CPUs")
    _refuse_both(extra, {"gpus_per_node": gpus_per_node, **given})
    if table and array is None:
        array = f"1-{rows}"
    if table and array:
        _refuse_tasks_without_line(table, rows, array)
    none = gpus_per_node is not None and gpus_per_node.strip("0") == ""
    return Batch(
        **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        gpus_per_node=None if none or gres else gpus_per_node or Batch.gpus_per_node,
        gres=gres,
        array=array,
        output=output or (ARRAY_OUTPUT if array else Batch.output),
        extra=tuple(extra),
        sets=str(table) if table else None,
    )


def _refuse_both(extra: Sequence[str], given: Mapping[str, object]) -> None:
    for option in extra:
        ours = INSTEAD.get(option_name(option))
        if ours and given.get(ours.replace("-", "_")) is not None:
            raise ConfigError(f"--extra is {option!r}, but sbatch takes it only without --{ours}: give one of them")


def _refuse_tasks_without_line(table: Path, rows: int, array: str) -> None:
    numbers = tasks(array)
    if strangers := [number for part in numbers for number in (part[0], part[-1]) if not 1 <= number <= rows]:
        raise ConfigError(f"--array {array}: task {strangers[0]} has no line in {table}, which has {rows}, from task 1")


def for_run(batch: Batch, configs: Sequence[RunConfig], arguments: Sequence[str], env: Mapping[str, str]) -> Batch:
    """The script of one run, or of an array's: the longest grace decides when Slurm signals, the longest patience how
    long the last node may stay. Raises: ConfigError."""
    return replace(
        batch,
        grace_seconds=max(_grace_seconds(config, env) for config in configs),
        wait_seconds=max(ceil(config.parallel.wait_seconds) for config in configs) + MARGIN_SECONDS,
        arguments=tuple(arguments),
    )


def _grace_seconds(config: RunConfig, env: Mapping[str, str]) -> int:
    """As the job will have it: what the config says, else SFT_JOB_GRACE, which the job gets from this shell."""
    if config.grace != "auto":
        return grace_seconds(config)
    seconds = told_grace_seconds(env) or grace_seconds(config)
    if config.max_time_seconds is not None and config.max_time_seconds <= seconds:
        raise ConfigError(
            f"max_time: {config.max_time} is over before a stop, for which a job on Slurm has {seconds} s; make it "
            f"longer, or set {GRACE} or the config's grace"
        )
    return seconds


def told_grace_seconds(env: Mapping[str, str]) -> int | None:
    """SFT_JOB_GRACE in whole seconds; None where it is not set. Raises: ConfigError."""
    if not (told := env.get(GRACE, "").strip()):
        return None
    try:
        return ceil(duration_seconds(f"{told}s" if told.isdigit() else told))
    except ValueError as error:
        raise ConfigError(f"{GRACE} is {told!r}: give seconds, or a duration like 120s ({error})") from error


def _one_line(what: str, text: str) -> None:
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        raise ConfigError(f"{what}: {text!r} has a character that no script can hold in one line")
