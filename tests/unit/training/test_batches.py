"""The rows of a step follow from seed, epoch and step."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.training.batches import Schedule, epoch_order

GOLDEN = [7, 1, 6, 4, 3, 5, 9, 0, 2, 8]


def test_the_order_of_an_epoch_is_the_one_it_has_always_been() -> None:
    """Were it another after an upgrade, a resumed run would see rows twice and others never."""
    assert epoch_order(10, 42, 0).tolist() == GOLDEN


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_has_each_row_exactly_once_and_only_its_last_step_may_be_smaller(
    rows: int, size: int, seed: int, epoch: int
) -> None:
    schedule = Schedule(rows, size, epochs=10, max_steps=None, seed=seed)
    assert schedule.steps_per_epoch == math.ceil(rows / size)
    first = epoch * schedule.steps_per_epoch + 1
    batches = [schedule.rows_of(step).tolist() for step in range(first, first + schedule.steps_per_epoch)]
    assert sorted(row for batch in batches for row in batch) == list(range(rows))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) == (rows % size or size)


@given(st.integers(2, 100), st.integers(0, 100), st.integers(0, 100))
def test_the_order_depends_on_seed_and_epoch_and_on_nothing_asked_before(rows: int, seed: int, epoch: int) -> None:
    before = epoch_order(rows, seed, epoch).tolist()
    epoch_order(rows, seed + 1, epoch)
    np.random.seed(epoch)
    assert epoch_order(rows, seed, epoch).tolist() == before


def test_other_seeds_and_epochs_have_other_orders() -> None:
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_the_global_batch_size_cuts_an_order_but_does_not_change_it() -> None:
    small, large = (Schedule(30, size, 1, None, 7) for size in (3, 7))
    in_order = [np.concatenate([s.rows_of(step) for step in range(1, s.steps + 1)]).tolist() for s in (small, large)]
    assert in_order[0] == in_order[1]


def test_an_order_that_was_handed_out_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Schedule(10, 5, 1, None, 0).rows_of(1)[0] = 3


@pytest.mark.parametrize(
    ("rows", "size", "epochs", "max_steps", "steps"),
    [
        (30, 7, 1, None, 5),
        (30, 7, 3, None, 15),
        (30, 10, 0.5, None, 2),
        (30, 10, 0.34, None, 2),
        (10, 1, 0.7, None, 7),  # 0.7 * 10 is a little more than 7 in binary
        (100, 1, 0.07, None, 7),
        (100, 1, 1e-05, None, 1),
        (1, 8, 30, None, 30),
        (30, 7, 3, 4, 4),
        (30, 7, 1, 400, 400),
    ],
)
def test_a_run_has_as_many_steps_as_its_epochs_say(
    rows: int, size: int, epochs: float, max_steps: int | None, steps: int
) -> None:
    assert Schedule(rows, size, epochs, max_steps, 0).steps == steps
