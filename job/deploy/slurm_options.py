"""What a person may ask of a batch script, checked before Slurm sees it: sbatch's own answers come late or not at all.

sbatch splits an #SBATCH line at spaces and takes quotes and # for its own, so no value may hold any.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

from job.config import RunConfig
from job.deploy.grace import grace_seconds
from job.deploy.slurm import Batch, option_name
from job.errors import ConfigError

ARRAY_OUTPUT = "%x-%A_%a.out"
START_SECONDS = 120  # from a job's start to the first steps, at the least
MARGIN_SECONDS = 60  # after the longest wait for a node
MINUTE, HOUR, DAY = 60, 3600, 86400
ENDLESS = ("UNLIMITED", "INFINITE")
TIMES = (  # man sbatch, --time
    (r"(\d+)", (MINUTE,)),
    (r"(\d+):(\d+)", (MINUTE, 1)),
    (r"(\d+):(\d+):(\d+)", (HOUR, MINUTE, 1)),
    (r"(\d+)-(\d+)", (DAY, HOUR)),
    (r"(\d+)-(\d+):(\d+)", (DAY, HOUR, MINUTE)),
    (r"(\d+)-(\d+):(\d+):(\d+)", (DAY, HOUR, MINUTE, 1)),
)
FORMS = {
    "job_name": (r"[^\s'\"\\#/%]+", "a name without spaces, quotes, slashes, % and #"),
    "nodes": (r"[1-9]\d*(-[1-9]\d*)?", "a number like 4, or a range like 2-4"),
    "gpus_per_node": (r"([\w.-]+:)?\d+", "a number like 8, perhaps after a type: a100:8"),
    "gres": (r"[\w.-]+(:[\w.-]+)*(,[\w.-]+(:[\w.-]+)*)*", "resources as the site names them, like gpu:a100:8"),
    "mem": (r"\d+[KMGT]?", "a number of megabytes, or one with K, M, G or T; 0 is all of the node's"),
    "array": (r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?", "task numbers like 1-10, 1,3,7 or 1-100%4"),
}
RUNTIME = r"(venv|module|apptainer|pyxis|oci):[^~].*"
PLAIN = (r"[^\s'\"\\#]+", "a value without spaces, quotes, backslashes and #")
OWN = {name.replace("_", "-"): name for name in Batch.__dataclass_fields__ if name != "extra"}
FIXED = ("ntasks", "ntasks-per-node")  # the script rests on what it says itself


def checked(batch: Batch) -> Batch:
    """The same, all values well-formed. Raises: ConfigError, naming the option and what it takes."""
    for name in OWN.values():
        value = getattr(batch, name)
        if not isinstance(value, str) or name in ("time", "runtime", "bind", "sets"):
            continue
        form, means = FORMS.get(name, PLAIN)
        if not re.fullmatch(form, value, re.ASCII if name in FORMS and name != "job_name" else 0):
            raise ConfigError(f"--{name.replace('_', '-')} is {value!r}: give {means}")
    for name in ("runtime", "bind", "sets"):
        _one_line(f"--{name}", getattr(batch, name) or "")
    if batch.runtime is not None and not re.fullmatch(RUNTIME, batch.runtime):
        raise ConfigError(
            f"--runtime is {batch.runtime!r}: give venv:/path, module:name[,name], apptainer:image.sif, pyxis:image or "
            "oci:/bundle; leave it out where sft-job is on PATH"
        )
    for word in batch.arguments:
        _one_line("RUN and --set", word)
    for option in batch.extra:
        _refuse_extra(option)
    if batch.time is not None and (seconds := time_seconds(batch.time)) is not None:
        least = batch.lead_seconds + START_SECONDS
        if seconds < least:
            raise ConfigError(
                f"--time {batch.time} is over before there is a step: a start takes a minute or two, and the last "
                f"{batch.lead_seconds} s are for the last checkpoint (grace, and a minute for Slurm); "
                f"give at least {ceil(least / MINUTE)} minutes"
            )
    return batch


def time_seconds(text: str) -> int | None:
    """A time limit of sbatch in seconds; None: there is none, which may also be written 0. Raises: ConfigError."""
    if text.upper() in ENDLESS:
        return None
    for form, units in TIMES:
        if match := re.fullmatch(form, text, re.ASCII):
            return sum(int(number) * unit for number, unit in zip(match.groups(), units, strict=True)) or None
    raise ConfigError(f"--time is {text!r}: give minutes, hours:minutes:seconds or days-hours, like 04:00:00")


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


def _refuse_tasks_without_line(table: Path, rows: int, array: str) -> None:
    numbers = [int(number) for number in re.findall(r"\d+", re.sub(r"[:%]\d+", "", array))]
    if strangers := [number for number in numbers if not 1 <= number <= rows]:
        raise ConfigError(f"--array {array}: task {strangers[0]} has no line in {table}, which has {rows}, from task 1")


def for_run(batch: Batch, config: RunConfig, arguments: Sequence[str]) -> Batch:
    """The script of one run: its grace decides when Slurm signals, its patience how long the last node may stay."""
    return replace(
        batch,
        grace_seconds=grace_seconds(config),
        wait_seconds=ceil(config.parallel.wait_seconds) + MARGIN_SECONDS,
        arguments=tuple(arguments),
    )


def _refuse_extra(option: str) -> None:
    _one_line("--extra", option)
    if not re.match(r"--[a-z]|-[A-Za-z]", option):
        raise ConfigError(f"--extra is {option!r}: give an option of sbatch as it is, like --extra=--reservation=x")
    try:
        shlex.split(option)
    except ValueError as error:
        raise ConfigError(f"--extra is {option!r}: a quote is not closed") from error
    if (name := option_name(option)) in OWN:
        raise ConfigError(f"--extra is {option!r}: give --{name} itself")
    if name in FIXED:
        raise ConfigError(f"--extra is {option!r}: the script starts one supervisor on each node, and sets that itself")


def _one_line(what: str, text: str) -> None:
    if not text.isprintable():
        raise ConfigError(f"{what}: {text!r} has a character that no script can hold in one line")
