"""Silence is measured against what is usual; starting and finishing have their own patience."""

from typing import Any

import pytest

from job.host.watchdog import LEAST_SECONDS, STARTING_SECONDS, Watchdog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def step(seconds: float) -> dict[str, Any]:
    return {"kind": "step", "seconds": seconds}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_before_the_first_step_loading_may_take_long(clock: Clock) -> None:
    dog = Watchdog(5.0, clock)
    dog.saw([{"kind": "training"}])
    clock.now += STARTING_SECONDS - 1
    assert dog.overdue() is None
    clock.now += 2
    assert dog.overdue() is not None


def test_short_steps_leave_a_filesystem_minutes(clock: Clock) -> None:
    dog = Watchdog(None, clock)
    dog.saw([step(0.1)] * 20)
    clock.now += LEAST_SECONDS - 1
    assert dog.overdue() is None
    clock.now += 2
    assert "a step usually takes 0.1 s" in str(dog.overdue())


def test_long_steps_may_be_ten_times_as_long(clock: Clock) -> None:
    dog = Watchdog(None, clock)
    dog.saw([step(100.0)] * 5)
    clock.now += 999
    assert dog.overdue() is None
    clock.now += 2
    assert "for 1001 s" in str(dog.overdue())


def test_any_sign_of_life_counts(clock: Clock) -> None:
    dog = Watchdog(6.0, clock)
    dog.saw([step(1.0)])
    for _ in range(10):
        clock.now += 5
        dog.saw([{"kind": "alive"}])
        dog.saw([])
        assert dog.overdue() is None
    clock.now += 7
    assert dog.overdue() is not None


def test_writing_the_result_may_take_long(clock: Clock) -> None:
    dog = Watchdog(6.0, clock)
    dog.saw([step(1.0), {"kind": "finishing"}])
    clock.now += 600
    assert dog.overdue() is None
