"""The scaling benchmark tells requests apart, sees checkpoints read too often, and compares like with like."""

from collections import Counter

import pytest

from tests.bench.scaling import of_steps
from tests.bench.step_cost import StepCost, comparable
from tests.bench.store_requests import (
    CHECKPOINTS,
    HEAD,
    INPUTS,
    LIST,
    OTHER,
    PUT,
    RECORDS,
    Asked,
    Machines,
    growth,
    kind,
)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("GET /bench/runs/one/checkpoints/0001-ab/step-5-cd/state.json", CHECKPOINTS),
        ("GET /bench/runs/one/commits/0001-00000005.json", RECORDS),
        ("GET /bench/runs/one/run.json", RECORDS),
        ("GET /bench/runs/one/prepared/ab/0001/train-0", INPUTS),
        ("GET /bench/base/model.safetensors", INPUTS),
        ("GET /bench/checkpoints/model.safetensors", INPUTS),
        ("HEAD /bench/runs/one/checkpoints/0001-ab/step-5-cd/state.json", HEAD),
        ("GET /bench?list-type=2&prefix=runs%2Fone%2Fcheckpoints%2F", LIST),
        ("GET /bench/?list-type=2&prefix=runs", LIST),
        ("PUT /bench/runs/one/attempts/0001.json", PUT),
        ("POST /bench/runs/one/events/1?uploads", PUT),
        ("DELETE /bench/runs/one/commits/0001-00000005.json", OTHER),
    ],
)
def test_a_request_is_told_by_what_it_asks_for(request_: str, expected: str) -> None:
    assert kind(f"{request_}\nhost: here\nrange: bytes=0-1") == expected


def asked(nodes: int, fresh: int, resumed: int) -> Asked:
    return Asked(Machines(nodes, 1), Counter({CHECKPOINTS: fresh}), Counter({CHECKPOINTS: resumed}))


def test_checkpoints_that_every_node_reads_are_seen_to_grow() -> None:
    assert growth([asked(1, 0, 3), asked(2, 0, 3), asked(3, 0, 2)]) == []
    (sentence,) = growth([asked(1, 0, 3), asked(2, 0, 3), asked(3, 0, 9)])
    assert sentence == "3 nodes, 1 rank each: 9 reads of checkpoints, 3 with 1 node, 1 rank each"
    assert len(growth([asked(1, 0, 3), asked(2, 1, 6)])) == 2


def test_a_resumed_run_that_read_no_checkpoint_proves_nothing() -> None:
    with pytest.raises(ValueError, match="1 node, 1 rank each: resumed without reading a checkpoint"):
        growth([asked(1, 0, 0), asked(2, 0, 0)])


def test_first_steps_and_each_first_of_a_block_are_left_out() -> None:
    assert comparable(range(12), range(10), block=4, warm=2) == [2, 3, 5, 6, 7, 9]


def test_the_extra_time_of_a_step_is_that_over_the_bare_step_of_the_same_rows() -> None:
    lengths = [0.010, 0.500, 0.020]  # of rows
    one = StepCost(1, [(seconds + 0.0005, seconds) for seconds in lengths], [(seconds, seconds) for seconds in lengths])
    assert one.extra_seconds() == pytest.approx(0.0005)
    assert of_steps(one, share=True) == ["20.0", "0.50", "2.5% MISSED", "20.0", "0.00", "3"]
    assert of_steps(one, share=False)[2] == "2.5%"
