"""A weight of 2 is each row twice an epoch, 0.5 is half of the rows and the next epoch the other half."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.training.batches import Schedule, epoch_order
from job.training.mixture import drawn, epoch_rows, taken

PARTS = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 3.7])), min_size=1, max_size=4
)


PLAIN = [[1, 6, 4], [3, 5, 0], [2], [4, 5, 3], [0, 2, 1], [6]]
WEIGHED = [[3, 1, 6, 0], [2, 1, 0, 2], [2, 1, 0, 2], [0, 4, 1, 5]]


def rows_of(parts: tuple[tuple[int, float], ...], seed: int, epoch: int) -> list[int]:
    return [int(row) for row in epoch_order(sum(rows for rows, _ in parts), seed, epoch, parts)]


def test_twice_is_each_row_twice_an_epoch_beside_rows_that_count_once() -> None:
    for epoch in range(3):
        counted = Counter(rows_of(((3, 2.0), (4, 1.0)), 42, epoch))
        assert counted == {0: 2, 1: 2, 2: 2, 3: 1, 4: 1, 5: 1, 6: 1}


def test_half_is_half_of_the_rows_and_the_other_half_in_the_next_epoch() -> None:
    parts = ((10, 0.5), (4, 1.0))
    first, second, third = (set(rows_of(parts, 42, epoch)) & set(range(10)) for epoch in range(3))
    assert len(first) == len(second) == 5 and first | second == set(range(10))
    assert third not in (first, second)  # each pass has an order of its own
    assert all(set(range(10, 14)) <= set(rows_of(parts, 42, epoch)) for epoch in range(3))


@pytest.mark.parametrize(
    ("rows", "weight", "size"),
    [
        (10, 1.0, 10),
        (10, 0.25, 3),
        (10, 0.24, 2),
        (10, 0.01, 1),
        (0, 2.0, 0),
        (100, 0.07, 7),
        (3, 0.5, 2),
        (7, 1.5, 11),
    ],
)
def test_the_product_is_rounded_and_no_source_vanishes(rows: int, weight: float, size: int) -> None:
    assert taken(rows, weight) == size == epoch_rows(rows, [(rows, weight)])


@settings(deadline=None)
@given(PARTS, st.integers(0, 2**32 - 1), st.integers(1, 7))
def test_no_row_comes_again_before_every_other_of_its_source_has_come(
    parts: list[tuple[int, float]], seed: int, epochs: int
) -> None:
    seen = Counter[int]()
    for epoch in range(epochs):
        order = drawn(parts, seed, epoch)
        assert len(order) == epoch_rows(-1, parts)
        seen.update(order.tolist())
        first = 0
        for rows, weight in parts:
            counts = [seen[row] for row in range(first, first + rows)]
            assert sum(counts) == (epoch + 1) * taken(rows, weight)
            assert max(counts, default=0) - min(counts, default=0) <= 1
            first += rows


def test_the_rows_of_each_step_are_those_they_have_always_been() -> None:
    """Were they others after an upgrade, a resumed run would see rows twice and others never."""
    plain = Schedule(7, 3, 2, None, 42)
    assert [plain.rows_of(step).tolist() for step in range(1, plain.steps + 1)] == PLAIN
    weighed = Schedule(7, 4, 2, None, 42, ((3, 2.0), (4, 0.5)))
    assert (weighed.epoch_rows, weighed.steps_per_epoch, weighed.steps) == (8, 2, 4)
    assert [weighed.rows_of(step).tolist() for step in range(1, 5)] == WEIGHED


def test_weights_of_one_change_nothing() -> None:
    order = epoch_order(7, 42, 1).tolist()
    assert sorted(rows_of(((3, 1.0), (4, 1.0)), 42, 1)) == sorted(order)
    assert epoch_order(7, 42, 1, ()).tolist() == order


def test_sources_are_drawn_apart_from_each_other() -> None:
    """Two sources of one size and weight: the same places of both would be a correlation nobody asked for."""
    order = drawn([(100, 0.5), (100, 0.5)], 42, 0)
    assert not np.array_equal(order[:50], order[50:] - 100)


@given(PARTS, st.integers(0, 99), st.integers(0, 9))
def test_what_was_asked_before_changes_nothing(parts: list[tuple[int, float]], seed: int, epoch: int) -> None:
    before = rows_of(tuple(parts), seed, epoch)
    rows_of(tuple(parts), seed, epoch + 1)
    epoch_order(5, seed, epoch)
    assert rows_of(tuple(parts), seed, epoch) == before
