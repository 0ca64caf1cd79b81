"""Opens checkpoints as a resuming run would and says what is wrong with their content: safetensors and JSON only.

Started as `python -m job.loads` by the supervisor's side, which has checked the files' hashes. A line of JSON in, one
out, as long as lines come: {"files": {name: path}, "step": n, "evaluations": [...] or null} of a commit, or
{"files": ...} of a result; the answer is {"problems": [...]}.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from job.training.process import bind_to_parent
from job.training.snapshot import FORMAT, OPTIMIZER, STATE, TRAINABLE

SHAPED = {"exp_avg", "exp_avg_sq", "state1", "state2"}  # as their parameter; scales and counts have shapes of their own
Evaluations = list[dict[str, Any]] | None
Shapes = dict[str, tuple[int, ...]]


class Loads:
    """All commits of a run hold the same tensors: the first that is loaded tells which."""

    def __init__(self) -> None:
        self._first: Shapes | None = None

    def commit(self, files: Mapping[str, Path], step: int, evaluations: Evaluations) -> list[str]:
        """What is wrong; [] when a run could go on from these files. `evaluations` None: not to be compared."""
        if lost := [name for name in (TRAINABLE, OPTIMIZER, STATE) if name not in files]:
            return [f"{name}: is missing from the commit's record" for name in lost]
        problems = state_faults(files[STATE], step, evaluations)
        shapes: Shapes = {}
        optimizer: Shapes = {}
        for name, found in ((TRAINABLE, shapes), (OPTIMIZER, optimizer)):
            problems += opened(files[name], name, found)
        if problems:
            return problems
        problems += optimizer_faults(shapes, optimizer)
        self._first = self._first or shapes
        if shapes != self._first:
            odd = sorted(dict(shapes.items() ^ self._first.items()))
            problems.append(f"{TRAINABLE}: {odd[0]} and {len(odd) - 1} more are not as in the other commits")
        return problems

    def result(self, files: Mapping[str, Path]) -> list[str]:
        """What is wrong with the tensors of a result."""
        weights = {name: path for name, path in files.items() if name.endswith(".safetensors")}
        if not weights:
            return ["it holds no safetensors file"]
        return [problem for name, path in weights.items() for problem in opened(path, name, {})]


def opened(path: Path, name: str, shapes: Shapes) -> list[str]:
    """Reads every tensor into `shapes`, one in memory at a time; what cannot be read, or is not finite, is wrong."""
    problems = []
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                shapes[key] = tuple(tensor.shape)
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    problems.append(f"{name}: {key} holds values that are not finite")
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        return [f"{name}: cannot be opened: {first_line(error)}"]
    if not shapes:
        return [f"{name}: holds no tensor"] if name == TRAINABLE else []
    return problems


def optimizer_faults(trainable: Shapes, optimizer: Shapes) -> list[str]:
    """`optimizer`: shapes by "kind/parameter name", as snapshots store them."""
    for key, shape in optimizer.items():
        kind, _, name = key.partition("/")
        if name not in trainable:
            return [f"{OPTIMIZER}: {key} belongs to no trainable tensor"]
        if kind in SHAPED and shape != trainable[name]:
            return [f"{OPTIMIZER}: {key} has shape {list(shape)}, its parameter {list(trainable[name])}"]
    return []


def state_faults(path: Path, step: int, evaluations: Evaluations) -> list[str]:
    """Where state.json and the commit's record disagree."""
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        kind, at, done = state["format"], state["step"], state["evaluations"]
    except (ValueError, KeyError, TypeError) as error:
        return [f"{STATE}: cannot be read: {first_line(error)}"]
    if kind != FORMAT:
        return [f"{STATE}: has format {kind}, this version reads {FORMAT}"]
    problems = [] if at == step else [f"{STATE}: is of step {at}, the record says {step}"]
    same = json.dumps(done, sort_keys=True) == json.dumps(evaluations, sort_keys=True)  # an evaluation may be NaN
    if evaluations is not None and not same:
        problems.append(f"{STATE}: has other evaluations than the record")
    return problems


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def main() -> int:
    """Answers on stdout, everything else (libraries that print included) on stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bind_to_parent()
    loads = Loads()
    for line in sys.stdin:
        request = json.loads(line)
        files = {name: Path(path) for name, path in request["files"].items()}
        if "step" in request:
            problems = loads.commit(files, request["step"], request["evaluations"])
        else:
            problems = loads.result(files)
        print(json.dumps({"problems": problems}), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
