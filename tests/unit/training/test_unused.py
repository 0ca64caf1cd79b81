"""A rank imports no package only because it is installed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from job.rundir import RunDir, Spec
from job.training.unused import unused


def attempt(
    folder: Path, optim: str = "adamw", base: Any = None, strategy: str = "auto", quantize: str | None = None
) -> RunDir:
    run = RunDir(folder).make()
    run.base.mkdir(parents=True)
    (run.base / "config.json").write_text(json.dumps(base or {"model_type": "gemma"}))
    config = {"model": {"quantize": quantize}, "train": {"optim": optim}, "parallel": {"strategy": strategy}}
    Spec(config, 1, "nonce", "base", None).write(run)
    return run


@pytest.mark.parametrize(
    ("optim", "base", "strategy", "names"),
    [
        ("adamw", None, "auto", {"wandb", "bitsandbytes", "deepspeed"}),
        ("adamw_8bit", None, "ddp", {"wandb", "deepspeed"}),
        ("adamw", {"quantization_config": {"quant_method": "bitsandbytes"}}, "single", {"wandb", "deepspeed"}),
        ("adamw", ["no", "mapping"], "auto", {"wandb", "deepspeed"}),
        ("adamw", None, "zero2", {"wandb", "bitsandbytes"}),
    ],
)
def test_what_optimizer_base_or_strategy_may_need_is_not_left_out(
    tmp_path: Path, optim: str, base: Any, strategy: str, names: set[str]
) -> None:
    assert set(unused(attempt(tmp_path, optim, base, strategy))) == names


def test_four_bits_need_bitsandbytes(tmp_path: Path) -> None:
    assert set(unused(attempt(tmp_path, quantize="nf4"))) == {"wandb", "deepspeed"}


PROGRAM = """
import sys
from pathlib import Path
from job.rundir import RunDir
from job.training.unused import leave_out_unused
leave_out_unused(RunDir(Path(sys.argv[1])))
from trl import SFTTrainer
import peft
from accelerate.utils import extract_model_from_parallel
import torch
extract_model_from_parallel(torch.nn.Linear(1, 1))
print(*(name for name in ("wandb", "bitsandbytes", "deepspeed") if sys.modules.get(name)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("optim", "imported"), [("adamw", []), ("adamw_8bit", ["bitsandbytes"])])
def test_the_libraries_take_them_for_not_installed(tmp_path: Path, optim: str, imported: list[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, str(attempt(tmp_path, optim).path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == imported
