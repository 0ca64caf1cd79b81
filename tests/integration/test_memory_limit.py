"""Ranks under a real limit of their address space: they go on with less at a time, or say that nothing fits."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from job.errors import ExitCode
from job.storage.store import open_store
from job.tiny import make
from tests.harness import Job, sets
from tests.standins import write_rows

pytestmark = pytest.mark.slow

VOCABULARY, ROW_TOKENS = 32768, 500  # a row's logits alone, and what the loss makes of them, take 200 MB
LIMIT = """
import resource

def callbacks(run):
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    limit = now + {more} * 1000000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return []
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    base = make(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    drawn = np.random.default_rng(0).normal(0.0, 0.05, (VOCABULARY, weights["model.embed_tokens.weight"].shape[1]))
    weights["model.embed_tokens.weight"] = drawn.astype(np.float32)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    described = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**described, "vocab_size": VOCABULARY}), encoding="utf-8")
    write_rows(tmp_path / "rows.jsonl", [{"text": f"{number:03d} " * (ROW_TOKENS // 5)} for number in range(16)])
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {tmp_path}/run
model: {{base: {tmp_path}/base}}
data: {{train: [{tmp_path}/rows.jsonl], loss: all, max_length: {ROW_TOKENS}}}
lora: {{r: 4}}
train: {{max_steps: 2, global_batch_size: 8, logging_steps: 1}}
hooks: {tmp_path}/hooks.py
parallel: {{device: cpu}}
""",
        encoding="utf-8",
    )
    return path


def run(config: Path, more_megabytes: int, *fields: str) -> Job:
    (config.parent / "hooks.py").write_text(LIMIT.format(more=more_megabytes), encoding="utf-8")
    return Job(["run", str(config), *fields], config.parent / "home", {"SFT_JOB_ALLOW_CODE": "1"})


def test_the_budget_is_halved_until_it_fits_and_the_run_ends_well(config: Path) -> None:
    job = run(config, 600)
    assert job.ended() == ExitCode.DONE, job.said()
    said = job.said()
    assert said.index("layers are recomputed from now on") < said.index(f"the token budget is {2 * ROW_TOKENS:,}")
    assert "step 2/2" in said and "finished" in said
    store = open_store(str(config.parent / "run"))
    record = json.loads(store.get("run.json"))
    assert record["config"]["train"]["token_budget"] == "auto"  # what the user wrote, for other machines
    known = [json.loads(store.get(entry.key)) for entry in store.list("budgets/")]
    assert [(one["token_budget"], one["gradient_checkpointing"]) for one in known] == [(2 * ROW_TOKENS, True)]


def test_where_not_even_one_row_fits_it_ends_with_71_and_one_line(config: Path) -> None:
    job = run(config, 120)
    assert job.ended() == ExitCode.MEMORY, job.said()
    last = job.said().strip().splitlines()[-1]
    assert f"one row of {ROW_TOKENS} tokens at a time" in last and "data.max_length" in last


def test_what_the_user_set_is_not_lowered(config: Path) -> None:
    explicit = sets({"train.token_budget": 4 * ROW_TOKENS, "train.gradient_checkpointing": False})
    job = run(config, 600, *explicit)
    assert job.ended() == ExitCode.MEMORY, job.said()
    assert "from now on" not in job.said()
    assert f"train.token_budget is {4 * ROW_TOKENS:,}" in job.said().strip().splitlines()[-1]
