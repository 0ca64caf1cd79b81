"""What may be asked of a batch script, and how a mistake in it is told."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.deploy.slurm import Batch, script
from job.deploy.slurm_options import batch_of, checked
from job.deploy.slurm_values import time_seconds
from job.errors import ConfigError

NOTHING: dict[str, Any] = {"gpus_per_node": None, "gres": None, "array": None, "output": None, "extra": ()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 5400), ("90:30", 5430), ("4:00:00", 14400), ("2-12", 216000), ("2-12:30", 217800)),
        *(("2-12:30:10", 217810), ("UNLIMITED", None), ("infinite", None), ("0", None)),
    ],
)
def test_every_form_of_a_time_that_sbatch_takes_is_understood(text: str, seconds: int | None) -> None:
    assert time_seconds(text) == seconds


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"time": "4h"}, "--time is '4h'"),
        ({"time": "-1"}, "--time is '-1'"),
        ({"time": "49711-0"}, "--time 49711-0 is more than a year: give less, or UNLIMITED"),
        ({"grace_seconds": 65476, "time": "UNLIMITED"}, "a grace of 65476 s is more than Slurm's signal"),
        ({"time": "00:04:00"}, "--time 00:04:00 is over before there is a step.*at least 5 minutes"),
        ({"time": "20", "grace_seconds": 1800}, "at least 33 minutes"),
        ({"nodes": "0"}, "--nodes is '0'"),
        ({"nodes": "four"}, "--nodes is 'four'"),
        ({"nodes": "４"}, "--nodes is '４'"),
        ({"nodes": "4-2"}, "--nodes is '4-2': a range begins with the smaller number"),
        ({"nodes": "-1"}, "--nodes is '-1'"),
        ({"nodes": "99999999999"}, "--nodes is '99999999999'"),
        ({"gpus_per_node": "gpu:4"}, "--gpus-per-node is 'gpu:4': give a number like 8"),
        ({"gpus_per_node": "-1"}, "--gpus-per-node is '-1'"),
        ({"gpus_per_node": "99999999999"}, "--gpus-per-node is '99999999999'"),
        ({"gpus_per_node": "many"}, "--gpus-per-node is 'many'"),
        ({"gres": "gpu:"}, "--gres is 'gpu:'"),
        ({"gres": "gpu:-1"}, "--gres is 'gpu:-1'"),
        ({"gres": "gpu=1"}, "--gres is 'gpu=1'"),
        ({"mem": "64 GB"}, "--mem is '64 GB'"),
        ({"mem": "64Gi"}, "--mem is '64Gi'"),
        ({"mem": "64B"}, "--mem is '64B'"),
        ({"mem": "1.5T"}, "--mem is '1.5T'"),
        ({"mem": "-5G"}, "--mem is '-5G'"),
        ({"mem": "64"}, "--mem is '64': less than sft-job itself needs; sbatch counts megabytes where there is no"),
        ({"mem": "68719476736"}, "--mem is '68719476736': more than any node has"),
        ({"array": "1-"}, "--array is '1-'"),
        ({"array": "-1"}, "--array is '-1'"),
        ({"array": "5-2"}, "--array is '5-2': a range begins with the smaller number"),
        ({"array": "1-2,5-4"}, "--array is '1-2,5-4': a range begins with the smaller number"),
        ({"array": "1-4:0"}, "--array is '1-4:0'"),
        ({"array": "1-4000001"}, "--array is '1-4000001': no Slurm has a task 4000001"),
        ({"job_name": "a b"}, "--job-name is 'a b'"),
        ({"job_name": "a/b"}, "--job-name is 'a/b'"),
        ({"partition": "a\n#SBATCH --exclusive"}, "--partition is "),
        ({"output": "my logs/%x"}, "--output is 'my logs/%x'"),
        ({"constraint": "a#b"}, "--constraint is 'a#b'"),
        ({"runtime": "venv:/a\nb"}, "--runtime: "),
        ({"bind": "/a\x00"}, "--bind: "),
        ({"arguments": ("a\nb.yaml",)}, "RUN: 'a.*b.yaml' has a character"),
        ({"arguments": ("a.yaml", "--set", "x=a\nb")}, "--set: 'x=a.*b' has a character"),
        ({"arguments": ("a\udcffb.yaml",)}, "RUN: "),
        ({"extra": ("--comment=a\nrm -rf",)}, "--extra: "),
    ],
)
def test_a_value_that_no_batch_script_can_have_is_refused_in_one_line(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        checked(replace(Batch(), **values))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [
        *({"mem": mem} for mem in ("0", "0G", "64g", "64GB", "64gb", "4096", "1T")),
        *({"time": time} for time in ("1-0", "0", "90:99", "UNLIMITED")),
        *({"array": array} for array in ("0", "1-1", "1-4:9", "3,1,1", "01-02", "1-9%2")),
        *({"gres": gres} for gres in ("gpu", "gpu:2", "gpu:a100:2,lscratch:10G", "none")),
        *({"nodes": nodes} for nodes in ("2-2", "65000")),
    ],
)
def test_what_sbatch_takes_is_not_refused(values: dict[str, Any]) -> None:
    assert checked(replace(Batch(), **values)) == replace(Batch(), **values)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        *((option, "give an option of sbatch as it is") for option in ("reservation=x", "", "-", "--", "-1", "---x")),
        *((option, "give an option of sbatch as it is") for option in ("--Exclusive", "'- x'", "- x", "'a b'")),
        ("--comment='a", "a quote is not closed"),
        ("--comment=a#b", "sbatch takes what follows # for a comment"),
        ("--exclusive # all of it", "sbatch takes what follows # for a comment"),
        ("--comment=a\\ b", "sbatch drops backslashes"),
        ("--exclusive --foo", "give one option each"),
        ("--reservation=x -x n1", "give one option each"),
        ("-x n1 --exclusive", "give one option each"),
        ("-HN2", "give one option each"),
        ("--reservation=x y", "put a value with spaces into quotes"),
        ("-x n1 n2", "put a value with spaces into quotes"),
        ("-xn1 n2", "put a value with spaces into quotes"),
        ("--exclusive user", "join name and value by =, like --exclusive=user"),
        ("-x=n1", "a short option's value comes without ="),
        ("--nodes=3", "give --nodes itself"),
        ("'--nodes=3'", "give --nodes itself"),
        ("-N2", "give --nodes itself"),
        ("-t 10", "give --time itself"),
        ("-p x", "give --partition itself"),
        ("--bind=x", "give --bind itself"),
        ("--set=x", "give --set itself"),
        ("--part=x", "sbatch may take it for --partition; write its name in full"),
        ("--sig=B:USR1@9", "sbatch may take it for --signal; write its name in full"),
        ("--requ", "sbatch may take it for --requeue; write its name in full"),
        ("--no-req", "sbatch may take it for --no-requeue; write its name in full"),
        ("--ntasks-per-n=2", "sbatch may take it for --ntasks-per-node; write its name in full"),
        ("-n4", "the script starts one supervisor on each node"),
        ("--ntasks-per-node=8", "the script starts one supervisor on each node"),
        ("--test-only", "with it sbatch would not just queue the job"),
        ("-W", "with it sbatch would not just queue the job"),
    ],
)
def test_an_extra_that_is_not_one_option_or_that_has_its_own_way_is_refused_with_what_to_do(
    option: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as raised:
        checked(Batch(extra=(option,)))
    assert str(raised.value).startswith(f"--extra is {option!r}: ") and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("option", "ours"),
    [
        *(("-G 4", "gpus_per_node"), ("--gpus=4", "gpus_per_node"), ("--gpus-per-task=4", "gpus_per_node")),
        *(("--cpus-per-gpu=6", "cpus_per_task"), ("--mem-per-gpu=64G", "mem")),
    ],
)
def test_an_extra_that_sbatch_takes_only_without_one_of_our_lines_takes_its_place(option: str, ours: str) -> None:
    given: dict[str, Any] = {**NOTHING, "extra": (option,)}
    head = script(checked(batch_of(None, 0, **given))).partition("\n#\n")[0]
    assert f"#SBATCH {option}\n" in f"{head}\n" and f"--{ours.replace('_', '-')}=" not in head
    with pytest.raises(ConfigError, match=f"--extra is '{option}', but sbatch takes it only without --{ours[:3]}"):
        batch_of(None, 0, **{**given, ours: "64G"})


def test_gpus_are_asked_for_in_one_way() -> None:
    with pytest.raises(ConfigError, match="give one"):
        batch_of(None, 0, **{**NOTHING, "gpus_per_node": "2", "gres": "gpu:2"})
    assert batch_of(None, 0, **{**NOTHING, "gres": "gpu:2"}).gpus_per_node is None
    assert batch_of(None, 0, **{**NOTHING, "gpus_per_node": "a100:2"}).gpus_per_node == "a100:2"
    assert batch_of(None, 0, **{**NOTHING, "gpus_per_node": "0"}).gpus_per_node is None


@pytest.mark.parametrize("array", ["0-2", "1-4", "1,5", "4", "3-9:5"])
def test_every_task_has_a_line_in_the_table(array: str) -> None:
    with pytest.raises(ConfigError, match="has no line in table, which has 3, from task 1"):
        batch_of(Path("table"), 3, **{**NOTHING, "array": array})
    assert batch_of(Path("table"), 3, **{**NOTHING, "array": "1-3:2%9"}).array == "1-3:2%9"
    assert batch_of(Path("table"), 3, **{**NOTHING, "array": "1-4:2"}).array == "1-4:2", "task 4 is none of them"


def test_any_option_of_sbatch_passes_through_and_wins_over_what_is_always_there() -> None:
    extra = (
        "--comment='x # y'",
        "--reservation=x",
        "--signal=B:USR1@9",
        "--no-requeue",
        "--open-mode=truncate",
        "-x n1",
    )
    head = script(checked(Batch(extra=extra))).partition("\n#\n")[0].splitlines()
    assert head[-6:] == [f"#SBATCH {option}" for option in extra]
    assert not [line for line in head[:-6] if "signal" in line or "requeue" in line or "open-mode" in line]
