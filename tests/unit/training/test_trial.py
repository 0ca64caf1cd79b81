"""Which rows are tried first: the fullest micro-batch by tokens, and by targets."""

import resource

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from job.training.dataset import PreparedRows
from job.training.trial import due, worst


def rows(lengths: list[int], trained: list[int]) -> PreparedRows:
    made = PreparedRows.__new__(PreparedRows)
    made.lengths, made.trained = np.array(lengths), np.array(trained)
    return made


def test_the_longest_rows_and_those_with_the_most_targets_are_tried() -> None:
    lengths, trained = [10, 60, 30, 20, 25], [9, 1, 2, 19, 24]
    assert worst(rows(lengths, trained), 100, padded=False) == [[1, 2, 0], [4, 3, 0, 2]]


def test_one_micro_batch_is_tried_once() -> None:
    assert worst(rows([10, 60], [9, 50]), 100, padded=False) == [[1, 0]]


def test_a_row_longer_than_the_budget_is_tried_alone() -> None:
    assert worst(rows([10, 60], [9, 50]), 40, padded=False) == [[1]]


def test_padded_rows_cost_as_much_as_the_longest() -> None:
    assert worst(rows([10, 60, 40, 30], [1, 1, 1, 1]), 130, padded=True) == [[1, 2]]


@given(st.lists(st.tuples(st.integers(2, 50), st.integers(1, 50)), min_size=1, max_size=30), st.integers(50, 200))
def test_no_row_that_would_still_fit_is_left_out(sizes: list[tuple[int, int]], budget: int) -> None:
    lengths, trained = [length for length, _ in sizes], [min(length, targets) for length, targets in sizes]
    for taken in worst(rows(lengths, trained), budget, padded=False):
        left = budget - sum(lengths[row] for row in taken)
        assert left >= 0 and len(set(taken)) == len(taken)
        assert all(length > left for row, length in enumerate(lengths) if row not in taken)


@pytest.mark.parametrize(("limit", "tried"), [(resource.RLIM_INFINITY, False), (1 << 40, True)])
def test_on_a_cpu_a_trial_is_due_where_memory_has_a_limit(
    monkeypatch: pytest.MonkeyPatch, limit: int, tried: bool
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert due(torch.device("cpu")) is tried
    assert due(torch.device("cuda")) is True
