"""The budget's record: written once it is known to work, read before anything is chosen; and what lowering does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from job import budgets
from job.config import RunConfig
from job.errors import OutOfMemory, RankCrashed
from job.host.choice import Choice, choose
from job.host.gpus import machine
from job.host.topology import Topology
from job.measured import Measured
from job.storage.memory import MemoryStore
from tests.shapes import GEMMA_2B, shape, write_headers

FULL = OutOfMemory("out of memory")


def run_config(**sections: Any) -> RunConfig:
    model = {"base": "b", "precision": "bf16"}
    return RunConfig.from_dict({"run": "r", "model": model, "data": {"train": ["d"]}, "lora": {}, **sections})


def on_gpus(config: RunConfig) -> Choice:
    return choose(config, shape(GEMMA_2B, tied=True), Topology("cuda", 8, "ddp"), machine("H100-80")[0].memory_bytes)


def budget(config: RunConfig, choice: Choice | None = None, store: MemoryStore | None = None) -> budgets.Budget:
    made = choice or on_gpus(config)
    at = Topology("cuda", 1 if made.strategy == "single" else 8, made.strategy)
    return budgets.Budget(config, made, at, store or MemoryStore(), "budgets/x.json", None, print)


def measured(**trial: Any) -> Measured:
    found = Measured()
    found.saw([{"kind": "trial", **trial}])
    return found


def test_layers_are_recomputed_first_then_the_budget_is_halved_down_to_one_row() -> None:
    config = run_config(parallel={"strategy": "ddp"})
    now = budget(config)
    said, tokens = [], [now.choice.token_budget]
    with pytest.raises(OutOfMemory, match=r"one row of 1,024 tokens at a time, layers recomputed: shorten data\.max"):
        while True:
            said.append(now.lower(FULL))
            tokens.append(now.choice.token_budget)
    assert said[0] == "layers are recomputed from now on, and "
    assert tokens == [8192, 8192, 4096, 2048, 1024] and now.choice.gradient_checkpointing
    assert now.settled().train.token_budget == 1024


def test_after_one_row_a_strategy_is_taken_that_shards_more() -> None:
    now, taken = budget(run_config()), []
    with pytest.raises(OutOfMemory, match="take a larger GPU"):
        while True:
            said = now.lower(FULL)
            if now.choice.strategy not in (taken or ["ddp"])[-1]:
                taken.append(now.choice.strategy)
                assert said == f"{taken[-1]} takes the place of {(['ddp', *taken])[-2]}, and "
    assert taken == ["zero1", "zero2", "zero3"]
    assert now.settled().parallel.strategy == "zero3" and now.choice.token_budget == 1024


def test_only_what_is_auto_is_lowered() -> None:
    fixed = budget(run_config(train={"token_budget": 4096}, parallel={"strategy": "ddp"}))
    assert "recomputed" in fixed.lower(FULL)
    with pytest.raises(OutOfMemory, match=r"train\.token_budget is 4,096"):
        fixed.lower(FULL)
    never = budget(run_config(train={"gradient_checkpointing": False}))
    assert "4,096" in never.lower(FULL)


def test_any_other_error_lowers_nothing() -> None:
    now = budget(run_config())
    before = now.choice
    assert now.lower(RankCrashed("killed")) == ""
    assert now.choice == before


def test_what_worked_is_recorded_once_with_its_prediction_and_its_peak() -> None:
    store = MemoryStore()
    now = budget(run_config(), store=store)
    now.keep(Measured())
    assert store.list("budgets/") == []  # the ranks have not shown it yet
    now.keep(measured(token_budget=8192, peak_bytes=50 << 30))
    first = json.loads(store.get("budgets/x.json"))
    assert first["token_budget"] == 8192 and first["peak_bytes"] == 50 << 30
    assert now.choice.predicted is not None and first["predicted_bytes"] == now.choice.predicted.total
    now.keep(measured(token_budget=8192, peak_bytes=51 << 30))
    assert json.loads(store.get("budgets/x.json")) == first
    now.lower(FULL)
    now.keep(measured(token_budget=8192, peak_bytes=20 << 30))
    assert json.loads(store.get("budgets/x.json"))["gradient_checkpointing"]


def test_the_default_of_the_cpu_is_not_recorded_unless_it_was_lowered() -> None:
    store, config = MemoryStore(), run_config()
    now = budget(config, choose(config, None, Topology("cpu", 1, "single"), None), store)
    now.keep(measured(token_budget=4096))
    assert store.list("budgets/") == []
    now.lower(FULL)
    now.keep(measured(token_budget=4096))
    assert [entry.key for entry in store.list("budgets/")] == ["budgets/x.json"]


EIGHT = Topology("cuda", 8, "ddp")


def begun(
    config: RunConfig, base: Path, store: MemoryStore, say: budgets.Say = print, at: Topology = EIGHT
) -> budgets.Budget:
    return budgets.budget(config, base, at, store, say, lambda: machine("8xH100-80"))


def test_an_attempt_on_such_a_machine_takes_what_worked_before(tmp_path: Path) -> None:
    base, store = write_headers(tmp_path / "base", GEMMA_2B, tied=True), MemoryStore()
    config, said = run_config(), list[str]()
    first = begun(config, base, store, said.append)
    first.lower(FULL)
    first.keep(measured(peak_bytes=30 << 30))
    assert [entry.key for entry in store.list("")] == ["budgets/h100-80gb-80gib-8-ddp.json"]
    second = begun(config, base, store, said.append)
    assert second.settled() == first.settled()
    assert "as before on such a machine, which took 30 GiB" in said[-1]
    other = begun(config, base, store, said.append, replace(EIGHT, ranks_per_node=4))
    assert not other.choice.gradient_checkpointing


def test_what_the_config_says_by_now_counts_more_than_the_record(tmp_path: Path) -> None:
    base, store = write_headers(tmp_path / "base", GEMMA_2B, tied=True), MemoryStore()
    first = begun(run_config(), base, store)
    first.keep(measured(peak_bytes=1))
    now = begun(run_config(train={"token_budget": 2048}), base, store)
    assert now.choice.token_budget == 2048


def test_a_damaged_record_is_said_and_passed_over(tmp_path: Path) -> None:
    base, store, said = write_headers(tmp_path / "base", GEMMA_2B, tied=True), MemoryStore(), list[str]()
    store.put("budgets/h100-80gb-80gib-8-ddp.json", b"{")
    assert begun(run_config(), base, store, said.append).choice.token_budget == 8192
    assert "is damaged" in said[0] and "estimated anew" in said[0]


def test_a_base_whose_shape_is_not_known_is_trained_all_the_same(tmp_path: Path) -> None:
    now = begun(run_config(), tmp_path, MemoryStore())
    assert (now.choice.strategy, now.choice.token_budget, now.choice.gradient_checkpointing) == ("ddp", 4096, True)
