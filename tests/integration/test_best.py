"""The best evaluation's weights become the result, also across a kill; patience ends a run as finished."""

import json
import random
import signal
from pathlib import Path

import pytest

from job.storage.checkpoints import commit_keys, read_commit, step_of
from job.storage.store import open_store
from job.tiny import make
from tests.harness import Job, finish, sets

pytestmark = pytest.mark.slow


def write_unlearnable_chat(path: Path) -> None:
    """Answers drawn by lot: the rows that are trained on can be learned by heart, which makes the others worse."""
    lot = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(60):
            answer = "".join(lot.choice("abcdefgh") for _ in range(12))
            turns = [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make(tmp_path / "base")
    write_unlearnable_chat(tmp_path / "chat.jsonl")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {tmp_path}/run
model: {{base: {tmp_path}/base}}
data: {{train: [{tmp_path}/chat.jsonl], eval: 0.3, max_length: 64}}
lora: null
train: {{max_steps: 120, global_batch_size: 8, learning_rate: 3e-3, lr_scheduler_type: constant,
        logging_steps: 1, eval_steps: 10}}
checkpoint: {{every: 15m, keep: 1}}
parallel: {{device: cpu}}
""",
        encoding="utf-8",
    )
    return path


def evaluations(folder: Path) -> dict[int, float]:
    result = json.loads((folder / "final" / "result.json").read_text())
    return {done["step"]: done["eval_loss"] for done in result["evaluations"]}


def test_the_best_weights_are_published_also_after_a_kill_and_patience_ends_the_run(
    config: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    fields = {"best.final": "best", "best.patience": 2}
    finish(["run", str(config), *sets({**fields, "run": f"{tmp_path}/alone"})], tmp_path / "home")
    scores = evaluations(tmp_path / "alone")
    best = min(scores, key=lambda step: scores[step])
    assert 10 < best < 100 and max(scores) == best + 20, scores
    store = open_store(str(tmp_path / "alone"))
    kept = {step_of(key): read_commit(store, key) for key in commit_keys(store)}
    assert best in kept
    final = next((tmp_path / "alone" / "final").rglob("model.safetensors"))
    trained = load_file(tmp_path / "alone" / kept[best].folder / "trainable.safetensors")
    assert all((tensor == trained[name]).all() for name, tensor in load_file(final).items() if name in trained)

    killed = Job(["run", str(config), *sets(fields)], tmp_path / "home")
    killed.wait_for_step(best + 11)
    killed.signal(signal.SIGKILL)
    killed.ended()
    resumed = finish(["run", str(config), *sets(fields)], tmp_path / "home")
    assert "resumed from step" in resumed.said()
    assert evaluations(tmp_path / "run") == scores
    again = next((tmp_path / "run" / "final").rglob("model.safetensors"))
    assert again.read_bytes() == final.read_bytes()


def test_a_stop_before_a_due_evaluation_is_made_good_when_the_run_goes_on(config: Path, tmp_path: Path) -> None:
    finish(["run", str(config), *sets({"run": f"{tmp_path}/alone", "train.max_steps": 40})], tmp_path / "home")
    step, attempt = 0, 0
    while step < 40 and attempt < 4:
        job = Job(["run", str(config), *sets({"train.max_steps": 40})], tmp_path / "home")
        job.wait_for_step(min(step + 10, 40))
        job.signal(signal.SIGTERM)
        job.ended()
        attempt += 1
        step = step_of(commit_keys(open_store(str(tmp_path / "run")))[0])
    finish(["run", str(config), *sets({"train.max_steps": 40})], tmp_path / "home")
    assert evaluations(tmp_path / "run") == evaluations(tmp_path / "alone")
