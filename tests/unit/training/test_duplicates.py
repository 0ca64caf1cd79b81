"""Repeated rows are counted as a set would count them, and the first of them is named."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from job.training.duplicates import Digests, digest, digests, overlap, repeats

FEW = st.lists(st.integers(0, 6), max_size=20)


def of(numbers: list[int]) -> Digests:
    return np.array([number * 0x9E3779B97F4A7C15 % 2**64 for number in numbers], np.uint64)


@given(FEW)
def test_each_row_that_came_before_is_counted(numbers: list[int]) -> None:
    again = [(at, numbers.index(number)) for at, number in enumerate(numbers) if number in numbers[:at]]
    found = repeats(of(numbers))
    assert (found.rows, found.first) == (len(again), again[0] if again else None)


@given(FEW, FEW)
def test_each_row_that_stands_in_the_other_set_is_counted(numbers: list[int], others: list[int]) -> None:
    both = [(at, others.index(number)) for at, number in enumerate(numbers) if number in others]
    found = overlap(of(numbers), of(others))
    assert (found.rows, found.first) == (len(both), both[0] if both else None)


def test_a_digest_tells_tokens_and_labels_apart() -> None:
    rows = [([1, 2], [1, 2]), ([1, 2], [-100, 2]), ([1, 3], [1, 3]), ([1, 2], [1, 2])]
    made = digests(digest(*(np.array(part, np.int32) for part in row)) for row in rows)
    assert len(set(made.tolist())) == 3 and made[0] == made[3]
