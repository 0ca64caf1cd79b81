"""Tallies of parts of the data add up to that of the whole."""

from collections import Counter
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.training.tally import KINDS, OTHER_KIND, SHOWN_ROWS, Faults, Tally, by_powers_of_two, length_keeping


def tally(number: int) -> Tally:
    """Every field with something of its own in it."""
    made = Tally()
    for place, field in enumerate(fields(Tally)):
        value = getattr(made, field.name)
        if isinstance(value, Counter):
            value[number % 2] += place + number
        elif isinstance(value, dict):
            value[number] = None
        else:
            setattr(made, field.name, place + number)
    return made


def test_numbers_add_up_and_the_largest_stays() -> None:
    both, first, second = tally(1), tally(1), tally(3)
    both.merge(second)
    for field in fields(Tally):
        found, one, other = (getattr(each, field.name) for each in (both, first, second))
        if isinstance(found, Counter):
            assert found == one + other, field.name
        elif isinstance(found, dict):
            assert list(found) == [1, 3]
        else:
            assert found == (max(one, other) if field.name in ("longest", "largest_id") else one + other), field.name


def test_the_first_faults_are_shown_and_all_are_counted_by_kind() -> None:
    whole = Faults()
    for part in range(3):
        faults = Faults()
        for row in range(4):
            faults.add(f"f:{part * 4 + row}", f"{row} tokens, more than {part} (data.overlong: error)")
        whole.merge(faults)
    assert whole.rows == 12 and len(whole.shown) == SHOWN_ROWS
    assert [line.split(": ")[0] for line in whole.shown] == ["f:0", "f:1", "f:2", "f:3", "f:4"]
    assert whole.kinds == {"N tokens, more than N": 12}


def test_kinds_of_faults_are_bounded() -> None:
    faults = Faults()
    for row in range(KINDS * 2):
        faults.add("f:1", chr(0x4E00 + row))
    assert len(faults.kinds) <= KINDS + 1 and sum(faults.kinds.values()) == KINDS * 2 and OTHER_KIND in faults.kinds


@given(st.lists(st.integers(1, 50), min_size=1))
def test_the_length_that_keeps_a_share_is_the_least_that_does(lengths: list[int]) -> None:
    found = length_keeping(Counter(lengths), 0.9)
    assert sum(length <= found for length in lengths) >= 0.9 * len(lengths)
    assert sum(length < found for length in lengths) < 0.9 * len(lengths)


@pytest.mark.parametrize(
    "lengths, bins",
    [
        ([], []),
        ([1], [[1, 1]]),
        ([2, 3, 4, 5], [[2, 1], [4, 2], [8, 1]]),
        ([3, 33], [[4, 1], [8, 0], [16, 0], [32, 0], [64, 1]]),
    ],
)
def test_lengths_are_counted_by_powers_of_two(lengths: list[int], bins: list[list[int]]) -> None:
    assert by_powers_of_two(Counter(lengths)) == bins
