"""Trains a tiny run whole under one way of spreading it, and from its middle under another, and compares.

A way is a strategy on a number of gloo ranks. Each leg is real: job.train in its own processes, on a run folder of
prepared rows, going on from the snapshot that another way's ranks wrote.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from job import tiny
from job.config import RunConfig
from job.host.launch_plan import rank_environment
from job.host.launcher import free_port
from job.host.topology import Topology
from job.rundir import Prepare, RunDir, Spec

ROOT = Path(__file__).parents[2]
STEPS, MIDDLE = 9, 5  # 30 rows, 7 a step: an epoch has five steps, and the second one's first is the sixth
ROWS, BATCH = 30, 7
LEG_SECONDS = 240.0
TOLERANCE = 1e-5  # of a loss in fp32, relative


class Way(NamedTuple):
    strategy: str
    ranks: int

    def __str__(self) -> str:
        return f"{self.strategy}x{self.ranks}"


WAYS = [Way(strategy, ranks) for strategy in ("ddp", "zero1", "zero2", "zero3") for ranks in (1, 2, 3, 4)]


@dataclass(frozen=True)
class Case:
    """What is trained; everything that decides the numbers."""

    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = TOLERANCE
    memory_bytes: int | None = None  # that a rank may take

    def config(self, root: Path) -> RunConfig:
        made = RunConfig.from_dict(
            {
                "run": str(root / "never"),
                "model": {"base": str(root / "base")},
                "data": {"train": [str(root / "chat.jsonl")], "eval": 0.1, "max_length": 64},
                "lora": {"r": 4, "alpha": 8, "dropout": 0.0},
                "train": {"max_steps": STEPS, "global_batch_size": BATCH, "learning_rate": 1e-2, "token_budget": 96},
                "parallel": {"device": "cpu"},
                "checkpoint": {"every": f"{MIDDLE} steps"},
                "samples": {"prompts": ["Hello"], "max_new_tokens": 4},
            }
        )
        return made.replace(dict(self.fields))


@dataclass(frozen=True)
class Trained:
    """What a leg left: the loss and the rows of each of its steps, and the trained tensors of its last."""

    losses: dict[int, float]
    rows: list[list[int]]
    evaluations: list[float]
    tensors: dict[str, npt.NDArray[Any]]
    middle: Path
    tried: list[dict[str, Any]]  # what was told of the trial
    held: float  # rank 0's share of all parameters


class Laboratory:
    def __init__(self, root: Path) -> None:
        self._root, self._legs = root, 0
        self._whole: dict[tuple[str, Way], Trained] = {}
        tiny.make(root / "base")
        tiny.write_demo_chat(root / "chat.jsonl", ROWS + 4)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        environment["SFT_JOB_DEVICE"] = "cpu"
        self._forge = subprocess.Popen(
            [sys.executable, "-m", "tests.matrix.forge"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        assert self._forge.stdin is not None
        self._forge.stdin.close()
        self._forge.wait(30)

    def whole(self, case: Case, way: Way) -> Trained:
        """From the first step to the last, never stopped."""
        if (case.name, way) not in self._whole:
            self._whole[case.name, way] = self.leg(case, way, None)
        return self._whole[case.name, way]

    def resumed(self, case: Case, before: Way, after: Way) -> Trained:
        """From the middle of `before`'s to the last step."""
        return self.leg(case, after, self.whole(case, before).middle)

    def leg(self, case: Case, way: Way, snapshot: Path | None) -> Trained:
        self._legs += 1
        config = case.config(self._root).replace({"parallel.strategy": way.strategy})
        run = self._folder(config, snapshot, f"{self._legs:03d}-{case.name}-{way}")
        machine = Topology("cpu", way.ranks, way.strategy)
        port = free_port()
        environments = [rank_environment(machine, rank, port) for rank in machine.ranks]
        codes = self._ask(run.path, environments, case.memory_bytes)
        logs = "\n".join(
            f"--- {path.name}\n{path.read_text(encoding='utf-8')[-3000:]}" for path in run.path.glob("rank-*.log")
        )
        assert codes == [0] * way.ranks, f"{case.name} {way}: {codes}\n{logs}"
        return self._found(run)

    def _ask(self, folder: Path, environments: list[dict[str, str]], memory_bytes: int | None) -> list[int]:
        assert self._forge.stdin is not None and self._forge.stdout is not None
        asked = {"folder": str(folder), "environments": environments, "seconds": LEG_SECONDS}
        asked["memory_bytes"] = memory_bytes
        self._forge.stdin.write(json.dumps(asked) + "\n")
        self._forge.stdin.flush()
        codes: list[int] = json.loads(self._forge.stdout.readline())
        return codes

    def _folder(self, config: RunConfig, snapshot: Path | None, name: str) -> RunDir:
        run = RunDir(self._root / "legs" / name).make()
        run.base.symlink_to(self._root / "base")
        run.tokenizer.symlink_to(self._root / "base")
        run.prepared.symlink_to(self._prepared(config))
        step = None
        if snapshot is not None:
            run.resume.symlink_to(snapshot)
            step = MIDDLE
        Spec(config.to_dict(), 1, "matrix", "base", step, [], wait_seconds=60).write(run)
        return run

    def _prepared(self, config: RunConfig) -> Path:
        run = RunDir(self._root / "preparation")
        if not run.prepared.exists():
            run.make()
            run.tokenizer.symlink_to(self._root / "base")
            chat = self._root / "chat.jsonl"
            source = {"uri": str(chat), "path": str(chat), "format": None, "columns": None, "loss": None}
            Prepare(config.to_dict(), [source], []).write(run)
            subprocess.run([sys.executable, "-m", "job.prepare", str(run.path)], cwd=ROOT, check=True, timeout=120)
        return run.prepared

    def _found(self, run: RunDir) -> Trained:
        told = [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]
        losses = {event["step"]: event["loss"] for event in told if event["kind"] == "step"}
        rows = [json.loads(line) for line in (run.path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
        steps = [ids for ids in rows if len(ids) <= BATCH][: len(losses)]
        evaluations = [event["metrics"]["eval_loss"] for event in told if event["kind"] == "evaluation"]
        tensors = load_file(next(run.final.glob("*model.safetensors")))
        tried = [event for event in told if event["kind"] == "trial"]
        (begun,) = [event for event in told if event["kind"] == "training"]
        held = begun["held_parameters"] / begun["all_parameters"]
        return Trained(losses, steps, evaluations, tensors, run.snapshot(MIDDLE), tried, held)


def compare(case: Case, whole: Trained, resumed: Trained, said: str) -> None:
    """The resumed one's steps are the whole one's: the same rows, and losses within the tolerance."""
    assert sorted(resumed.losses) == list(range(MIDDLE + 1, STEPS + 1)), said
    assert resumed.rows == whole.rows[MIDDLE:], f"{said}: other rows"
    for step, loss in resumed.losses.items():
        assert np.isclose(loss, whole.losses[step], rtol=case.tolerance, atol=0), (
            f"{said}: the loss of step {step} is {loss}, not {whole.losses[step]}"
        )


def assert_same_bits(whole: Trained, resumed: Trained, said: str) -> None:
    assert resumed.losses == {step: whole.losses[step] for step in resumed.losses}, said
    assert resumed.tensors.keys() == whole.tensors.keys() and resumed.tensors
    for name, tensor in resumed.tensors.items():
        assert tensor.tobytes() == whole.tensors[name].tobytes(), f"{said}: {name} has other bits"


def with_fields(case: Case, name: str, **fields: Any) -> Case:
    dotted = {key.replace("__", "."): value for key, value in fields.items()}
    return replace(case, name=name, fields={**case.fields, **dotted})
