"""A checkpoint is opened as a resuming run would: names, shapes, finite values, a state that agrees with its record."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.loads import Loads
from job.training.snapshot import OPTIMIZER, STATE, TRAINABLE, Snapshot, write

EVALUATIONS = [{"step": 2, "eval_loss": float("nan")}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "step-4")


def made(folder: Path, width: int = 3) -> Path:
    weight = torch.ones(2, width)
    optimizer = {f"{kind}/a.weight": torch.zeros(2, width) for kind in ("exp_avg", "exp_avg_sq")}
    optimizer["step/a.weight"] = torch.tensor(3.0)
    write(Snapshot(4, {"a.weight": weight, "b.weight": weight.clone()}, optimizer, EVALUATIONS), folder)
    return folder


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


def faults(folder: Path, step: int = 4, evaluations: Any = EVALUATIONS) -> list[str]:
    return Loads().commit(files(folder), step, evaluations)


def test_a_snapshot_as_it_is_written_has_nothing_wrong(folder: Path) -> None:
    assert faults(folder) == []
    assert faults(folder, evaluations=None) == []


def test_a_state_of_another_step_or_with_other_evaluations_is_told(folder: Path) -> None:
    assert "is of step 4, the record says 5" in faults(folder, step=5)[0]
    assert "other evaluations" in faults(folder, evaluations=[])[0]


def changed(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (changed(TRAINABLE, lambda of: of["a.weight"].fill_(float("inf"))), "a.weight holds values that are not"),
        (changed(OPTIMIZER, lambda of: of["exp_avg/a.weight"].fill_(float("nan"))), "exp_avg/a.weight holds"),
        (changed(OPTIMIZER, lambda of: of.update({"exp_avg/c": torch.ones(1)})), "belongs to no trainable"),
        (changed(OPTIMIZER, lambda of: of.update({"exp_avg/a.weight": torch.ones(6)})), "has shape [6]"),
        (changed(TRAINABLE, lambda of: of.clear()), "holds no tensor"),
        (lambda folder: (folder / TRAINABLE).write_bytes(b"\x80\x02}."), "cannot be opened"),
        (lambda folder: (folder / STATE).write_text("{"), "cannot be read"),
        (lambda folder: (folder / STATE).write_text(json.dumps({"format": 9, "step": 4, "evaluations": []})), "format"),
        (lambda folder: (folder / OPTIMIZER).unlink(), "is missing"),
    ],
)
def test_each_thing_that_is_wrong_is_told_with_its_file(
    folder: Path, harm: Callable[[Path], object], words: str
) -> None:
    harm(folder)
    found = faults(folder)
    assert len(found) == 1 and words in found[0] and found[0].split(":")[0] in (TRAINABLE, OPTIMIZER, STATE)


def test_commits_of_one_run_hold_the_same_tensors(folder: Path, tmp_path: Path) -> None:
    loads, other = Loads(), made(tmp_path / "other", width=5)
    assert loads.commit(files(folder), 4, EVALUATIONS) == []
    assert "not as in the other commits" in loads.commit(files(other), 4, EVALUATIONS)[0]
    assert loads.commit(files(folder), 4, EVALUATIONS) == []


def test_a_result_needs_tensors_and_all_of_them_finite(folder: Path) -> None:
    assert Loads().result(files(folder)) == []
    changed(TRAINABLE, lambda of: of["a.weight"].fill_(float("nan")))(folder)
    assert len(Loads().result(files(folder))) == 1
    assert Loads().result({"README.md": folder / STATE}) == ["it holds no safetensors file"]


def test_a_pickle_in_a_safetensors_name_is_not_unpickled(folder: Path, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "opened",)

    (folder / TRAINABLE).write_bytes(pickle.dumps(Harm()))
    assert "cannot be opened" in faults(folder)[0]
    assert not (tmp_path / "opened").exists()


def test_the_program_answers_a_line_for_each_line(folder: Path) -> None:
    named = {name: str(path) for name, path in files(folder).items()}
    lines = [{"files": named, "step": step, "evaluations": EVALUATIONS} for step in (4, 5)] + [{"files": named}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    command = [sys.executable, "-m", "job.loads"]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True, timeout=120)
    answers = [json.loads(line)["problems"] for line in done.stdout.splitlines()]
    assert [len(problems) for problems in answers] == [0, 1, 0]
