"""One stop request with one deadline, whatever asks for it and however often."""

import os
import signal
from collections.abc import Iterator

import pytest

from job.host import preemption
from job.host.launcher import STOP_SIGNALS
from job.host.preemption import Stop


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now[0])
    yield now


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_every_stop_signal_is_a_request_and_none_ends_the_process(handlers: None, number: signal.Signals) -> None:
    stop = Stop(30).listen()
    assert not stop.requested()
    os.kill(os.getpid(), number)
    assert stop.requested() and stop.reason == number.name


def test_the_first_reason_counts_and_a_second_signal_changes_nothing(handlers: None, clock: list[float]) -> None:
    stop = Stop(30).listen()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.requested()
    clock[0] += 10
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested() and stop.reason == "SIGUSR1" and stop.seconds_left == 20


def test_time_is_left_without_end_until_a_stop_is_requested(clock: list[float]) -> None:
    stop = Stop(30)
    assert stop.seconds_left == float("inf")
    stop.request("spot notice")
    assert stop.seconds_left == 30
    clock[0] += 12
    assert stop.seconds_left == 18
    clock[0] += 20
    assert stop.seconds_left < 0


def test_max_time_asks_one_grace_period_before_it_is_over(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=100)
    clock[0] += 69
    assert not stop.requested()
    clock[0] += 2
    assert stop.requested() and stop.reason == "max_time" and stop.seconds_left == 30


def test_a_signal_before_max_time_is_the_reason(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=100)
    stop.request("SIGTERM")
    clock[0] += 1000
    assert stop.requested() and stop.reason == "SIGTERM"
