"""Tokens that are added to the vocabulary get embeddings, which are trained, checkpointed and published."""

import json
import signal
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from job.tiny import make
from tests.harness import Job, finish, sets

pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make(tmp_path / "base")
    rows = [{"prompt": "你好", "completion": "<tool>"}, {"prompt": "Hello", "completion": "<note>"}] * 8
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {tmp_path}/run
model: {{base: {tmp_path}/base, add_tokens: [<tool>, <note>]}}
data: {{train: [{tmp_path}/own.jsonl], max_length: 64}}
lora: {{r: 8}}
train: {{max_steps: 120, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1}}
checkpoint: {{every: 10 steps, keep: 2}}
parallel: {{device: cpu}}
""",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize("lora", ["{r: 8}", "null"])
def test_an_added_token_is_learned_and_answered_across_a_kill(config: Path, tmp_path: Path, lora: str) -> None:
    fields = [f"lora={lora}", *(["train.learning_rate=3e-3"] if lora == "null" else [])]
    options = [part for field in fields for part in ("--set", field)]
    finish(["run", str(config), *options, *sets({"run": f"{tmp_path}/alone"})], tmp_path / "home")
    killed = Job(["run", str(config), *options], tmp_path / "home")
    killed.wait_for_step(25)
    killed.signal(signal.SIGKILL)
    killed.ended()
    finish(["run", str(config), *options], tmp_path / "home")
    ours, theirs = (
        load_file(next((tmp_path / name / "final").rglob("*model.safetensors"))) for name in ("run", "alone")
    )
    assert all(tensor.tobytes() == theirs[name].tobytes() for name, tensor in ours.items())
    for prompt, answer in (("你好", "<tool>"), ("Hello", "<note>")):
        asked = finish(["ask", str(tmp_path / "run"), prompt], tmp_path / "home")
        assert asked.stdout().strip() == answer


def test_a_tokenizer_that_does_not_fit_the_base_is_refused_with_added_tokens_too(config: Path, tmp_path: Path) -> None:
    described = json.loads((tmp_path / "base" / "config.json").read_text())
    (tmp_path / "base" / "config.json").write_text(json.dumps({**described, "vocab_size": 100}))
    refused = finish(["run", str(config)], tmp_path / "home", code=65)
    assert "does not fit this base" in refused.said().splitlines()[-1]
