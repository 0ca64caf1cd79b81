"""One stop request with one deadline, whatever asks for it and however often."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert stop.seconds_left == stop.budget_seconds == float("inf")
    stop.request("spot notice")
    assert stop.seconds_left == 30
    clock[0] += 12
    assert stop.seconds_left == 18 and stop.budget_seconds == 30
    clock[0] += 20
    assert stop.seconds_left < 0


def test_a_notice_gives_its_own_deadline_however_long_the_grace_period_is(clock: list[float]) -> None:
    generous, short = Stop(30), Stop(30)
    generous.request("spot notice", 120)
    short.request("preempted", 8)
    assert (generous.seconds_left, short.seconds_left) == (120, 8)


def test_an_earlier_deadline_learned_later_counts_and_a_later_one_never(handlers: None, clock: list[float]) -> None:
    stop = Stop(30).listen()
    stop.request("spot notice", 120)
    clock[0] += 20
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested() and stop.reason == "spot notice"
    assert stop.seconds_left == 30 and stop.budget_seconds == 50
    stop.request("spot notice", 100)
    assert stop.seconds_left == 30


def test_max_time_asks_one_grace_period_before_it_is_over(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=100)
    clock[0] += 69
    assert not stop.requested()
    clock[0] += 2
    assert stop.requested() and stop.reason == "max_time" and stop.seconds_left == 29


def test_the_end_that_comes_first_is_the_one_that_asks(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=1000)
    stop.ends_in("the job's end time", 100)
    clock[0] += 71
    assert stop.requested() and stop.reason == "the job's end time" and stop.seconds_left == 29


def test_a_signal_before_max_time_is_the_reason(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=100)
    stop.request("SIGTERM")
    clock[0] += 1000
    assert stop.requested() and stop.reason == "SIGTERM"


def test_no_stop_lasts_beyond_a_known_end(clock: list[float]) -> None:
    stop = Stop(30)
    stop.ends_in("the job's end time", 100)
    clock[0] += 60
    stop.request("spot notice", 120)
    assert stop.requested() and stop.seconds_left == 120
    clock[0] += 11
    assert stop.requested() and stop.reason == "spot notice" and stop.seconds_left == 29


def test_an_end_that_moved_counts_as_it_was_said_last_until_the_stop_was_asked_for(clock: list[float]) -> None:
    stop = Stop(30, max_time_seconds=10_000)
    stop.ends_in("the job's end time", 100)
    stop.ends_in("the job's end time", 200)
    clock[0] += 100
    assert not stop.requested()
    clock[0] += 71
    assert stop.requested() and stop.reason == "the job's end time" and stop.seconds_left == 29
    stop.ends_in("the job's end time", 5000)
    assert stop.requested() and stop.seconds_left == 29


def test_what_is_over_already_asks_at_once(clock: list[float]) -> None:
    stop = Stop(30)
    stop.ends_in("the job's end time", -5)
    assert stop.requested() and stop.seconds_left == -5


@given(st.lists(st.tuples(st.text(max_size=3), st.none() | st.floats(0, 1e6)), min_size=1))
def test_the_first_reason_and_the_earliest_deadline_stand(asked: list[tuple[str, float | None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preemption.time, "monotonic", lambda: 0.0)
        stop = Stop(30)
        for reason, seconds in asked:
            before = stop.seconds_left
            stop.request(reason, seconds)
            assert stop.requested() and stop.seconds_left <= before
        assert stop.reason == asked[0][0]
        assert stop.seconds_left == min(30 if seconds is None else seconds for _, seconds in asked)


def test_threads_and_signals_that_ask_at_once_give_one_reason_and_the_earliest_deadline(handlers: None) -> None:
    stop = Stop(2e9).listen()
    begin, reasons = threading.Barrier(9), []

    def ask(number: int) -> None:
        begin.wait()
        for turn in range(200):
            stop.request(f"thread {number}", 1e9 - 1e8 * number - 1e5 * turn)
            reasons.append(stop.reason)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    begin.wait()
    for _ in range(50):
        os.kill(os.getpid(), signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert set(reasons) == {stop.reason}
    earliest = 1e9 - 7e8 - 199e5
    assert earliest - 1e4 < stop.seconds_left <= earliest
