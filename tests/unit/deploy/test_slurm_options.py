"""What may be asked of a batch script, and how a mistake in it is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job.deploy.slurm import Batch, script
from job.deploy.slurm_options import batch_of, checked, time_seconds
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
        ({"time": "00:04:00"}, "--time 00:04:00 is over before there is a step.*at least 5 minutes"),
        ({"time": "20", "grace_seconds": 1800}, "at least 33 minutes"),
        ({"nodes": "0"}, "--nodes is '0'"),
        ({"nodes": "four"}, "--nodes is 'four'"),
        ({"nodes": "４"}, "--nodes is '４'"),
        ({"gpus_per_node": "many"}, "--gpus-per-node is 'many'"),
        ({"gres": "gpu:"}, "--gres is 'gpu:'"),
        ({"mem": "4GB"}, "--mem is '4GB'"),
        ({"array": "1-"}, "--array is '1-'"),
        ({"job_name": "a b"}, "--job-name is 'a b'"),
        ({"job_name": "a/b"}, "--job-name is 'a/b'"),
        ({"partition": "a\n#SBATCH --exclusive"}, "--partition is "),
        ({"output": "my logs/%x"}, "--output is 'my logs/%x'"),
        ({"constraint": "a#b"}, "--constraint is 'a#b'"),
        ({"runtime": "venv:/a\nb"}, "--runtime: "),
        ({"bind": "/a\x00"}, "--bind: "),
        ({"arguments": ("a\nb.yaml",)}, "RUN and --set: "),
        ({"extra": ("reservation=x",)}, "--extra is 'reservation=x': give an option of sbatch"),
        ({"extra": ("--comment='a",)}, "a quote is not closed"),
        ({"extra": ("--comment=a\nrm -rf",)}, "--extra: "),
        ({"extra": ("--nodes=3",)}, "give --nodes itself"),
        ({"extra": ("-p x",)}, "give --partition itself"),
        ({"extra": ("-n4",)}, "the script starts one supervisor on each node"),
        ({"extra": ("--ntasks-per-node=8",)}, "the script starts one supervisor on each node"),
    ],
)
def test_a_value_that_no_batch_script_can_have_is_refused_in_one_line(values: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as raised:
        checked(replace(Batch(), **values))
    assert "\n" not in str(raised.value)


def test_gpus_are_asked_for_in_one_way() -> None:
    with pytest.raises(ConfigError, match="give one"):
        batch_of(None, 0, **{**NOTHING, "gpus_per_node": "2", "gres": "gpu:2"})
    assert batch_of(None, 0, **{**NOTHING, "gres": "gpu:2"}).gpus_per_node is None
    assert batch_of(None, 0, **{**NOTHING, "gpus_per_node": "a100:2"}).gpus_per_node == "a100:2"
    assert batch_of(None, 0, **{**NOTHING, "gpus_per_node": "0"}).gpus_per_node is None


@pytest.mark.parametrize("array", ["0-2", "1-4", "1,5", "4"])
def test_every_task_has_a_line_in_the_table(array: str) -> None:
    with pytest.raises(ConfigError, match="has no line in table, which has 3, from task 1"):
        batch_of(Path("table"), 3, **{**NOTHING, "array": array})
    assert batch_of(Path("table"), 3, **{**NOTHING, "array": "1-3:2%9"}).array == "1-3:2%9"


def test_any_option_of_sbatch_passes_through_and_wins_over_what_is_always_there() -> None:
    extra = ("--reservation=x y", "--signal=B:USR1@9", "--no-requeue", "--open-mode=truncate", "-x n1")
    head = script(checked(Batch(extra=extra))).partition("\n#\n")[0].splitlines()
    assert head[-5:] == [f"#SBATCH {option}" for option in extra]
    assert not [line for line in head[:-5] if "signal" in line or "requeue" in line or "open-mode" in line]
