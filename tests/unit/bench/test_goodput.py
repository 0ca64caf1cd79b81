"""The simulation of the benchmark agrees with what can be computed, and with common sense."""

import math

import pytest

from tests.bench.goodput import Figures, goodput, goodputs, ours, periodic

DAY = 24 * 3600.0


@pytest.mark.parametrize("between", [600.0, 3600.0, 21600.0])
def test_periodic_saves_cost_what_daly_computes(between: float) -> None:
    """Daly 2006, equation 20: wall over useful time is M e^(R/M) (e^((t+d)/M) - 1) / t."""
    at, interval = Figures(start=60, save=20), 300.0
    expected = interval / (between * math.exp(at.start / between) * math.expm1((interval + at.save) / between))
    assert goodput(at, between, periodic(at, interval), 200_000) == pytest.approx(expected, rel=0.02)


def test_without_interruptions_only_the_blocking_is_lost() -> None:
    at = Figures(blocking=1.0)
    found = goodput(at, 1000 * DAY, ours(at, 1000 * DAY), 2000)
    assert found == pytest.approx(1 - 1 / 1801, abs=1e-3)


def test_a_job_that_never_gets_to_its_first_step_has_no_goodput() -> None:
    assert all(found == 0 for found in goodputs(Figures(start=10**6), 60).values())


def test_announced_ends_help_those_who_listen() -> None:
    heard, unheard = (goodputs(Figures(announced=share), 3600) for share in (1.0, 0.0))
    assert heard["sft-job"] > unheard["sft-job"]
    assert heard["save every 500 steps"] == pytest.approx(unheard["save every 500 steps"], rel=0.02)
    assert unheard["save at TERM only"] == 0.0


def test_an_upload_that_is_never_through_in_time_keeps_nothing_but_what_is_announced() -> None:
    assert goodputs(Figures(announced=0.0, upload=10**6), 3600)["sft-job"] == 0.0
