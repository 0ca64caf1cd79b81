"""What is chosen where the config leaves it open, and why, in one line."""

import re
from typing import Any

import pytest

from job.config import RunConfig
from job.host.choice import FILLED, Choice, choose
from job.host.gpus import machine
from job.host.topology import Topology
from tests.shapes import GEMMA_2B, LLAMA_70B, QWEN3_8B, shape

H100 = machine("H100-80")[0].memory_bytes
A10 = machine("A10-24")[0].memory_bytes
GEMMA, QWEN, LLAMA = shape(GEMMA_2B, tied=True), shape(QWEN3_8B), shape(LLAMA_70B)


def run_config(lora: dict[str, Any] | None = None, /, **sections: dict[str, Any]) -> RunConfig:
    data = {"train": ["d"], **sections.pop("data", {})}
    model = {"base": "b", "precision": "bf16", **sections.pop("model", {})}
    return RunConfig.from_dict({"run": "r", "model": model, "data": data, "lora": lora, **sections})


def gpus(ranks: int, nodes: int = 1) -> Topology:
    return Topology("cuda", ranks, "single" if ranks * nodes == 1 else "ddp", nodes)


def chosen(
    config: RunConfig, *, ranks: int = 8, shape: Any = QWEN, memory: int | None = H100, nodes: int = 1
) -> Choice:
    return choose(config, shape, gpus(ranks, nodes), memory)


def test_the_least_sharding_that_fits_is_taken() -> None:
    assert chosen(run_config({}), shape=GEMMA).strategy == "ddp"
    assert chosen(run_config({}), shape=GEMMA, ranks=1).strategy == "single"
    assert chosen(run_config()).strategy == "zero1"
    assert chosen(run_config(), ranks=4).strategy == "zero2"
    assert chosen(run_config({}), shape=LLAMA).strategy == "zero3"
    assert chosen(run_config(), shape=LLAMA, nodes=4).strategy == "zero3"


def test_the_reason_names_what_would_not_have_fitted() -> None:
    why = chosen(run_config()).why
    assert re.fullmatch(
        r"zero1: \d+ GiB of the 80 GiB of each GPU with micro-batches of [\d,]+ tokens(, layers recomputed)?; "
        r"ddp would need 1\d\d GiB for a single row",
        why,
    )


def test_what_is_chosen_fits_into_nine_tenths_of_a_gpu() -> None:
    for config, model in ((run_config({}), GEMMA), (run_config({}), QWEN), (run_config(), QWEN)):
        found = chosen(config, shape=model)
        assert found.predicted is not None and found.predicted.total <= FILLED * H100


def test_layers_are_recomputed_only_where_memory_demands_it() -> None:
    roomy = chosen(run_config({}), shape=GEMMA)
    assert not roomy.gradient_checkpointing and roomy.token_budget >= 4 * 1024
    tight = chosen(run_config({}), shape=GEMMA, memory=A10)
    assert tight.gradient_checkpointing and tight.token_budget >= 1024


def test_the_budget_is_no_more_than_a_ranks_share_of_a_step() -> None:
    few = chosen(run_config({}, train={"global_batch_size": 8}), shape=GEMMA)
    assert few.token_budget == 4 * 1024
    many = chosen(run_config({}, train={"global_batch_size": 512}), shape=GEMMA)
    assert many.token_budget > few.token_budget


def test_long_rows_stand_alone_where_more_do_not_fit() -> None:
    found = chosen(run_config({}, data={"max_length": 8192}), shape=QWEN, memory=A10 * 2)
    assert found.token_budget == 8192 and found.gradient_checkpointing


def test_what_the_config_says_is_never_overridden() -> None:
    explicit = run_config(
        {},
        train={"token_budget": 3000, "gradient_checkpointing": True},
        parallel={"strategy": "zero3", "offload": "optimizer"},
    )
    found = chosen(explicit, shape=GEMMA)
    assert (found.strategy, found.offload, found.token_budget, found.gradient_checkpointing) == (
        "zero3",
        "optimizer",
        3000,
        True,
    )
    settled = found.settle(explicit)
    assert settled.train.token_budget == 3000 and settled.parallel.strategy == "zero3"


def test_settings_that_cannot_fit_by_far_are_warned_of_and_kept() -> None:
    found = chosen(run_config(parallel={"strategy": "ddp"}), shape=LLAMA)
    assert found.strategy == "ddp"
    assert "ddp needs about" in found.warning and "leave parallel.strategy at auto" in found.warning


def test_nothing_is_moved_to_the_host_unless_the_config_says_so() -> None:
    assert chosen(run_config(), shape=LLAMA).offload == "none"
    asked = chosen(run_config(parallel={"offload": "all"}), shape=LLAMA)
    assert (asked.strategy, asked.offload) == ("zero3", "all")
    assert chosen(run_config(parallel={"offload": "optimizer"}), shape=GEMMA).strategy == "zero1"


@pytest.mark.parametrize(
    ("model", "train", "worst"),
    [({}, {"optim": "adamw_8bit"}, "ddp"), ({"quantize": "nf4"}, {}, "zero2")],
    ids=["adamw_8bit", "nf4"],
)
def test_no_strategy_is_chosen_that_the_config_would_refuse(
    model: dict[str, Any], train: dict[str, Any], worst: str
) -> None:
    found = chosen(run_config({}, model=model, train=train), shape=LLAMA, memory=A10)
    assert found.strategy == worst
    found.settle(run_config({}, model=model, train=train))


def test_on_the_cpu_all_is_as_it_always_was() -> None:
    found = choose(run_config({}, data={"max_length": 64}), GEMMA, Topology("cpu", 2, "ddp"), None)
    assert (found.strategy, found.token_budget, found.gradient_checkpointing) == ("ddp", 256, False)
    assert found.predicted is None


def test_without_the_memory_of_the_gpus_nothing_is_guessed() -> None:
    found = chosen(run_config({}), memory=None)
    assert (found.strategy, found.token_budget, found.gradient_checkpointing) == ("ddp", 4096, True)


@pytest.mark.parametrize(
    ("rows", "ranks", "said"),
    [
        (8, 8, ""),
        (1, 2, "1 row a step on 2 ranks leave 1 idle: raise train.global_batch_size, or take fewer ranks"),
        (8, 64, "8 rows a step on 64 ranks leave 56 idle: raise train.global_batch_size, or take fewer ranks"),
    ],
)
def test_ranks_that_no_row_of_a_step_reaches_are_warned_of(rows: int, ranks: int, said: str) -> None:
    config = run_config({}, data={"max_length": 64}).replace({"train.global_batch_size": rows})
    assert choose(config, None, Topology("cpu", ranks, "ddp"), None).warning == said
