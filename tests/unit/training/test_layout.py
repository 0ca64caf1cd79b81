"""A layout loses, repeats and overfills nothing."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.training.layout import lay_out, quality

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=60)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 500), st.booleans())
def test_no_row_is_lost_or_trained_twice_whatever_the_lay_out(
    lengths: list[int], world_size: int, budget: int, padded: bool
) -> None:
    spread = lay_out(lengths, world_size, budget, padded)
    assert len(spread) == world_size
    assert Counter(row for rank in spread for micro in rank for row in micro) == Counter(range(len(lengths)))


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 500), st.booleans())
def test_every_rank_has_the_same_number_of_micro_batches_and_one_of_them_needs_it(
    lengths: list[int], world_size: int, budget: int, padded: bool
) -> None:
    spread = lay_out(lengths, world_size, budget, padded)
    assert len({len(rank) for rank in spread}) == 1
    assert any(all(rank) for rank in spread), "nobody waits for micro-batches that are empty everywhere"


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 500), st.booleans())
def test_the_token_budget_is_held_unless_one_row_alone_exceeds_it(
    lengths: list[int], world_size: int, budget: int, padded: bool
) -> None:
    for rank in lay_out(lengths, world_size, budget, padded):
        for micro in rank:
            sizes = [lengths[row] for row in micro]
            tokens = len(micro) * max(sizes, default=0) if padded else sum(sizes)
            assert tokens <= budget or len(micro) == 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9))
def test_ranks_differ_by_no_more_than_the_longest_row(lengths: list[int], world_size: int) -> None:
    loads = [
        sum(lengths[row] for micro in rank for row in micro)
        for rank in lay_out(lengths, world_size, token_budget=10**6)
    ]
    assert max(loads) - min(loads) <= max(lengths)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 500))
def test_micro_batches_are_filled(lengths: list[int], budget: int) -> None:
    """No two could be one."""
    (micros,) = lay_out(lengths, 1, budget)
    loads = sorted(sum(lengths[row] for row in micro) for micro in micros)
    assert len(loads) < 2 or loads[0] + loads[1] > budget


@given(LENGTHS, st.integers(1, 9), st.integers(1, 500))
def test_the_layout_is_the_same_on_every_rank_and_machine(lengths: list[int], world_size: int, budget: int) -> None:
    assert lay_out(lengths, world_size, budget) == lay_out(list(lengths), world_size, budget)


def test_a_layout_that_can_be_read() -> None:
    assert lay_out([5, 9, 3, 3, 1], world_size=2, token_budget=10) == [[[1, 4], []], [[0, 2], [3]]]
    assert lay_out([5, 9, 3, 3, 1], world_size=2, token_budget=10, padded=True) == [[[1], [4]], [[0, 2], [3]]]


def test_rows_of_equal_length_are_in_the_same_places_as_ever() -> None:
    """Adapters trained before and after an upgrade sum in the same order."""
    assert lay_out([4, 4, 4, 4, 4], world_size=2, token_budget=8) == [[[0, 2], [4]], [[1, 3], []]]


def test_what_a_layout_is_worth_is_told() -> None:
    lengths = [6, 4, 5, 1]
    found = quality([(lengths, [[[0, 1]], [[2, 3]]])], token_budget=10)
    assert found.filled == pytest.approx(16 / 20)
    assert found.in_full == pytest.approx(10 / 16)  # the second has room for another row of one token
    assert found.imbalance == pytest.approx(4 / 16)
