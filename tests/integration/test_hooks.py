"""The user's own module: shapes rows, looks on, computes metrics; its state rides in commits; off unless allowed."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from job.tiny import TALKS, make
from tests.harness import Job, finish, sets

pytestmark = pytest.mark.slow

MODULE = """
from transformers import TrainerCallback

seen = {"steps": 0}


def row(row):
    if row["ask"] == "skip":
        return None
    return {"prompt": row["ask"] + "=", "completion": row["say"]}


class Counter(TrainerCallback):
    def on_step_end(self, args, state, control, **others):
        seen["steps"] += 1


def callbacks(config):
    assert config["train"]["max_steps"] == 40
    return [Counter()]


def compute_metrics(predictions, labels):
    right = sum(int((ours == theirs).sum()) for ours, theirs in zip(predictions, labels))
    return {"accuracy": right / sum(len(each) for each in labels), "rows": len(labels), "steps_seen": seen["steps"]}


def state():
    return seen


def restore(state):
    seen.update(state)
"""
ALLOWED = {"SFT_JOB_ALLOW_CODE": "1"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make(tmp_path / "base")
    rows = [{"ask": ask, "say": say} for ask, say in TALKS] * 6 + [{"ask": "skip", "say": "never"}] * 5
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "hooks.py").write_text(MODULE, encoding="utf-8")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {tmp_path}/run
model: {{base: {tmp_path}/base}}
data: {{train: [{tmp_path}/own.jsonl], eval: 0.25, max_length: 64}}
lora: {{r: 8}}
hooks: {tmp_path}/hooks.py
best: {{metric: eval_accuracy, mode: max}}
train: {{max_steps: 40, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 20}}
checkpoint: {{every: 10 steps, keep: 2}}
parallel: {{device: cpu}}
""",
        encoding="utf-8",
    )
    return path


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "final" / "result.json").read_text())
    return found


def test_hooks_shape_rows_count_steps_and_give_metrics_as_if_there_had_been_no_kill(
    config: Path, tmp_path: Path
) -> None:
    alone = {"run": f"{tmp_path}/alone"}
    finish(["run", str(config), *sets(alone)], tmp_path / "home", ALLOWED)
    evaluations = result(tmp_path / "alone")["evaluations"]
    assert [(done["step"], done["eval_steps_seen"]) for done in evaluations] == [(20, 20), (40, 40)]
    assert {done["eval_rows"] for done in evaluations} == {11}, "14 of 53 rows; three of them were left out"
    assert 0 < evaluations[-1]["eval_accuracy"] <= 1
    assert result(tmp_path / "alone")["best"]["eval_accuracy"] == max(done["eval_accuracy"] for done in evaluations)

    killed = Job(["run", str(config)], tmp_path / "home", ALLOWED)
    killed.wait_for_step(25)
    killed.signal(signal.SIGKILL)
    killed.ended()
    hooks = tmp_path / "hooks.py"
    hooks.write_text(MODULE + "\n# changed\n", encoding="utf-8")
    changed = finish(["run", str(config)], tmp_path / "home", ALLOWED, code=78)
    assert "is not what this run began with" in changed.said().splitlines()[-1]
    hooks.unlink()  # the run brings its own copy
    finish(["run", str(config)], tmp_path / "home", ALLOWED)
    assert result(tmp_path / "run")["evaluations"] == evaluations


def test_two_ranks_give_the_metrics_of_one(config: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        fields = {"run": f"{tmp_path}/ranks-{ranks}", "parallel.nproc_per_node": ranks, "lora.dropout": 0.0}
        finish(["run", str(config), *sets(fields)], tmp_path / "home", ALLOWED)
    one, two = (result(tmp_path / f"ranks-{ranks}")["evaluations"] for ranks in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        assert ours["eval_rows"] == theirs["eval_rows"]
        assert ours["eval_accuracy"] == pytest.approx(theirs["eval_accuracy"], abs=0.05)


def test_code_is_off_unless_it_is_allowed_and_a_platform_can_say_so(config: Path, tmp_path: Path) -> None:
    refused = finish(["run", str(config)], tmp_path / "home", code=78)
    assert "SFT_JOB_ALLOW_CODE=1" in refused.said().splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("def row(row):\n    return row['no']\n", 65, r"own\.jsonl:1: hooks row\(\) failed: KeyError: 'no' \(line 2\)"),
        ("def rows(row):\n    return row\n", 78, "defines none of row, callbacks"),
        ("import no_such_module\n", 78, "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)\n", 78, r"cannot be imported: SystemExit: 3 \(line 1\)"),
        ("def row(row:\n", 78, "cannot be imported: SyntaxError"),
        ("def state():\n    return {}\n", 78, "only one of state and restore"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_module_is_one_line_with_its_place(
    config: Path, tmp_path: Path, text: str, code: int, said: str
) -> None:
    (tmp_path / "hooks.py").write_text(text, encoding="utf-8")
    job = finish(["run", str(config), *sets({"best.metric": "eval_loss"})], tmp_path / "home", ALLOWED, code)
    assert re.search(said, job.said().splitlines()[-1]), job.said()
