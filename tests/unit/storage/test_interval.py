"""The interval is where waste is least, and never outside its bounds."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from job.storage.interval import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    checkpoint_interval,
    expected_between_interruptions,
    young_daly,
)

costs = st.floats(1e-3, 600)
betweens = st.floats(60, 30 * 24 * 3600)
factors = st.floats(1.0, 100.0)


def wall_seconds(interval: float, cost: float, between: float) -> float:
    """Expected wall time of one second of useful work, for exponential interruptions (Daly 2006, equation 20, without
    its restart factor, which does not depend on the interval)."""
    return between * math.expm1((interval + cost) / between) / interval


def least(cost: float, between: float) -> float:
    """The expected wall time at the best interval there is, by search."""
    low, high = math.log(1e-3), math.log(2 * between)
    for _ in range(200):  # ternary search: the function has one valley
        third = (high - low) / 3
        if wall_seconds(math.exp(low + third), cost, between) < wall_seconds(math.exp(high - third), cost, between):
            high -= third
        else:
            low += third
    return wall_seconds(math.exp(low), cost, between)


@given(costs, betweens)
def test_no_other_interval_wastes_noticeably_less(cost: float, between: float) -> None:
    assume(cost < between)
    assert wall_seconds(young_daly(cost, between), cost, between) <= 1.002 * least(cost, between)


@given(costs, st.floats(1e5, 1e9))
def test_rare_interruptions_give_youngs_square_root(cost: float, times_rarer: float) -> None:
    between = cost * times_rarer
    assert math.isclose(young_daly(cost, between), math.sqrt(2 * cost * between), rel_tol=0.01)


@pytest.mark.parametrize(("between_hours", "interval_minutes"), [(24, 117), (6, 57), (0.25, 9.1)])
def test_the_figures_that_daly_published_come_out(between_hours: float, interval_minutes: float) -> None:
    found = young_daly(5 * 60, between_hours * 3600) / 60
    assert math.isclose(found, interval_minutes, rel_tol=0.007)


def test_a_checkpoint_that_outlasts_the_time_between_interruptions_is_taken_once_in_that_time() -> None:
    assert young_daly(200, 100) == 100
    assert young_daly(0, 100) == 0


@given(costs, betweens, factors)
def test_a_dearer_checkpoint_is_never_taken_more_often(cost: float, between: float, factor: float) -> None:
    assert young_daly(cost * factor, between) >= young_daly(cost, between) * (1 - 1e-12)


@given(costs, betweens, factors)
def test_rarer_interruptions_never_ask_for_more_checkpoints(cost: float, between: float, factor: float) -> None:
    assume(cost < 2 * between)
    assert young_daly(cost, between * factor) >= young_daly(cost, between) * (1 - 1e-12)


def test_before_anything_is_known_an_interruption_every_six_hours_is_expected() -> None:
    assert expected_between_interruptions([], 0) == 6 * 3600


def test_a_run_that_is_interrupted_every_ten_minutes_is_soon_known_as_such() -> None:
    assert expected_between_interruptions([600.0] * 60, 60) < 1000


def test_time_without_an_interruption_counts_as_well() -> None:
    assert expected_between_interruptions([24 * 3600.0], 0) == 30 * 3600


@given(costs, st.floats(0, 7200), betweens, st.floats(0, 1))
def test_the_interval_keeps_its_bounds(blocking: float, upload: float, between: float, slowdown: float) -> None:
    found = checkpoint_interval(blocking, upload, between, slowdown)
    assert SHORTEST_SECONDS <= found <= LONGEST_SECONDS
    assert found >= min(2 * upload, LONGEST_SECONDS)


def test_an_upload_that_takes_no_time_from_training_does_not_move_the_optimum() -> None:
    assert checkpoint_interval(1, 60, 6 * 3600) == young_daly(1, 6 * 3600)
    assert checkpoint_interval(1, 60, 6 * 3600, upload_slowdown=0.5) == young_daly(31, 6 * 3600)


def test_nothing_measured_yet_is_the_shortest_interval() -> None:
    assert checkpoint_interval(0, 0, 6 * 3600) == SHORTEST_SECONDS
