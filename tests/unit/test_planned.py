"""A plan as a value: what it says of a run, and the page made of it, held by golden files."""

import json

import pytest

from job.config import RunConfig
from job.errors import ConfigError
from job.host.elsewhere import planned_machine
from job.host.forecast import Measured
from tests.planning import GOLDEN_JSON, GOLDEN_TEXT, golden, page, plan_of, run_config
from tests.shapes import GEMMA_2B, LLAMA_70B, shape


def test_the_page_is_the_golden_one() -> None:
    assert page(golden()) == GOLDEN_TEXT.read_text(encoding="utf-8")


def test_the_json_is_the_golden_one() -> None:
    assert json.loads(json.dumps(golden())) == json.loads(GOLDEN_JSON.read_text(encoding="utf-8"))


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_but_a_command_is_wider_than_the_terminal(width: int) -> None:
    plan = plan_of(run_config(lora={}), of=shape(GEMMA_2B, tied=True))
    assert max(map(len, page(plan, width).splitlines())) <= width


def test_every_strategy_is_shown_by_part_and_the_parts_add_up() -> None:
    plan = plan_of(run_config())
    assert [row["strategy"] for row in plan["memory"]] == ["ddp", "zero1", "zero2", "zero3"]
    for row in plan["memory"]:
        assert sum(row["parts"].values()) == row["total_bytes"]
        assert row["fits"] == (row["total_bytes"] <= (plan["machine"]["gpu_bytes"] or 0))


def test_what_zero_shards_falls_with_the_ranks_and_the_rest_stays() -> None:
    one, two = (plan_of(run_config(), nodes=nodes)["memory"] for nodes in (1, 2))
    for few, many in zip(one[1:], two[1:], strict=True):
        assert many["parts"]["optimizer"] == pytest.approx(few["parts"]["optimizer"] / 2)
    assert two[1]["parts"]["gradients"] == one[1]["parts"]["gradients"]  # zero1 keeps them whole
    assert two[2]["parts"]["gradients"] == pytest.approx(one[2]["parts"]["gradients"] / 2)
    assert two[3]["parts"]["weights"] == pytest.approx(one[3]["parts"]["weights"] / 2)


def test_offloading_moves_bytes_to_the_host_and_loses_none() -> None:
    kept = plan_of(run_config(parallel={"strategy": "zero3"}))["memory"][3]
    moved = plan_of(run_config(parallel={"strategy": "zero3", "offload": "all"}))["memory"][3]
    assert moved["parts"]["optimizer"] == moved["parts"]["weights"] == 0
    assert moved["host_bytes"] == kept["parts"]["optimizer"] + kept["parts"]["weights"]


def test_a_measured_step_counts_instead_of_an_assumed_one() -> None:
    assumed = plan_of(run_config())["hours"]
    told = plan_of(run_config(), measured=Measured(step_seconds=10.0))
    assert not assumed["measured"] and any("TFLOPS" in text for text in assumed["assumed"])
    assert told["hours"]["measured"] and not any("TFLOPS" in text for text in told["hours"]["assumed"])
    assert told["hours"]["hours"] == pytest.approx(told["steps"]["steps"] * 10 / 3600)


def test_steps_that_are_done_are_not_waited_for_again() -> None:
    whole = plan_of(run_config(), measured=Measured(step_seconds=1.0))
    rest = plan_of(run_config(), measured=Measured(step_seconds=1.0), done=1000)
    assert whole["hours"]["hours"] is not None and rest["hours"]["hours"] is not None
    assert whole["hours"]["hours"] - rest["hours"]["hours"] == pytest.approx(1000 / 3600)


def test_the_grace_that_is_given_is_held_against_what_is_needed() -> None:
    measured = Measured(step_seconds=2.0)
    short, long = (plan_of(run_config(grace=given), measured=measured)["grace"] for given in ("30s", "1h"))
    assert short["needed_seconds"] == long["needed_seconds"] and not short["enough"] and long["enough"]
    assert "raise grace" in page(plan_of(run_config(grace="30s"), measured=measured))


def test_what_cannot_fit_by_far_is_warned_of_on_the_page() -> None:
    plan = plan_of(run_config(parallel={"strategy": "ddp"}), of=shape(LLAMA_70B))
    assert "expect it to run out of memory" in plan["chosen"]["warning"]
    assert "  ! ddp needs about" in page(plan)


def test_each_rank_of_each_node_has_its_line_on_request() -> None:
    plan = plan_of(run_config(), nodes=2, launch=True)
    assert [one["environment"]["RANK"] for one in plan["launch"]] == [str(rank) for rank in range(16)]
    assert {one["environment"]["MASTER_ADDR"] for one in plan["launch"]} == {"LEADER"}
    assert "OMP_NUM_THREADS" not in plan["launch"][0]["environment"]  # the cores of another machine are not known


@pytest.mark.parametrize(
    ("parallel", "spelled", "nodes", "words"),
    [
        ({}, "8 H100", 1, "write COUNTxNAME-GB"),
        ({"device": "cpu"}, "8xH100-80", 1, "parallel.device is cpu"),
        ({"nproc_per_node": 9}, "8xH100-80", 1, "names 8"),
        ({"strategy": "single"}, "8xH100-80", 2, "--nodes is 2"),
    ],
)
def test_a_machine_that_does_not_go_with_the_config_is_refused(
    parallel: dict[str, object], spelled: str, nodes: int, words: str
) -> None:
    config: RunConfig = run_config(parallel=parallel)
    with pytest.raises(ConfigError, match=words):
        planned_machine(config, spelled, nodes)
