"""A short LoRA job from the command to its committed end, beside TRL's own program on the same rows.

Both train the same tiny model with the same adapter, batch, steps and length in fp32 on the CPU, each in fresh folders
and with fresh caches. sft-job also prepares, commits, verifies and publishes; TRL also saves a checkpoint at its end.
Run as `python -m tests.bench.beside_trl [REPEATS]`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.cost import cost
from tests.harness import environment

STEPS, BATCH, MAX_LENGTH, RATE, RANK, ALPHA = 20, 8, 64, 1e-3, 16, 32
VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
TARGET_RATIO = 1.0


def ours(base: Path, chat: Path, place: Path) -> list[str]:
    """The command line of our job; its config is written to `place`."""
    config = {
        "run": str(place / "run"),
        "model": {"base": str(base), "precision": "fp32"},
        "data": {"train": [str(chat)], "max_length": MAX_LENGTH, "loss": "all"},
        "lora": {"r": RANK, "alpha": ALPHA, "dropout": 0.0, "target_modules": "all-linear"},
        "train": {"max_steps": STEPS, "global_batch_size": BATCH, "learning_rate": RATE, "logging_steps": 10},
        "parallel": {"device": "cpu"},
    }
    path = place / "run.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return [sys.executable, "-m", "job", "run", str(path)]


def trl_options(base: Path, chat: Path, place: Path) -> list[str]:
    options = {
        "model_name_or_path": base, "dataset_name": chat.parent, "output_dir": place / "out",
        "use_peft": True, "lora_r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "lora_target_modules": "all-linear",
        "max_steps": STEPS, "per_device_train_batch_size": BATCH, "max_length": MAX_LENGTH, "learning_rate": RATE,
        "logging_steps": 10, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dtype": "float32",
    }  # fmt: skip
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def one_process(base: Path, chat: Path, place: Path) -> list[str]:
    return [sys.executable, "-m", "trl.scripts.sft", *trl_options(base, chat, place)]


def command_line(base: Path, chat: Path, place: Path) -> list[str]:
    return [str(Path(sys.executable).parent / "trl"), "sft", *trl_options(base, chat, place)]


PROGRAMS: dict[str, Callable[[Path, Path, Path], list[str]]] = {
    "sft-job run": ours,
    "python -m trl.scripts.sft": one_process,
    "trl sft": command_line,
}


def measured(command: list[str], place: Path) -> tuple[float, float]:
    """(CPU seconds of all its processes, wall seconds)."""
    fresh = {"HF_HOME": str(place / "hf"), "HF_HUB_OFFLINE": "1"}
    with cost() as took:
        done = subprocess.run(command, env=environment(place / "home", fresh), capture_output=True, cwd=place)
    assert done.returncode == 0, done.stderr.decode()
    adapters = list(place.rglob("adapter_model.safetensors"))
    assert adapters, f"{command} left no adapter"
    return took.cpu_seconds, took.wall_seconds


def main(repeats: int = 5) -> None:
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        base, chat = root / "base", root / "rows" / "train.jsonl"
        chat.parent.mkdir()
        make = [sys.executable, "-m", "job.tiny", str(base), str(chat)]
        subprocess.run(make, env=environment(root / "home"), check=True, capture_output=True)
        for number in range(repeats):  # in turns: what else the machine does meets all of them
            for name, program in PROGRAMS.items():
                place = root / f"{number}-{len(name)}"
                place.mkdir()
                spent[name].append(measured(program(base, chat, place), place))
    show(spent)


def show(spent: dict[str, list[tuple[float, float]]]) -> None:
    cpu = {name: statistics.median(one for one, _ in runs) for name, runs in spent.items()}
    used = ", ".join(f"{name} {metadata.version(name)}" for name in VERSIONS)
    repeats = len(next(iter(spent.values())))
    table = Table(
        "program", "CPU s, median", "least", "most", "wall s, median", "sft-job / this",
        title=f"{STEPS} steps of LoRA on a tiny Gemma, {repeats} runs in turns", caption=used,
    )  # fmt: skip
    for name, runs in spent.items():
        seconds = [one for one, _ in runs]
        table.add_row(
            name, f"{cpu[name]:.1f}", f"{min(seconds):.1f}", f"{max(seconds):.1f}",
            f"{statistics.median(wall for _, wall in runs):.1f}", f"{cpu['sft-job run'] / cpu[name]:.2f}",
        )  # fmt: skip
    Console(width=120).print(table)
    ratio = cpu["sft-job run"] / cpu["python -m trl.scripts.sft"]
    print(f"ratio {ratio:.2f}, target {TARGET_RATIO} or less: {'met' if ratio <= TARGET_RATIO else 'MISSED'}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
