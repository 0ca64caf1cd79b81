"""Several pieces of work at once: the caller waits for results, never for what it no longer wants."""

import threading
from collections.abc import Callable

import pytest

from job.errors import Stopped
from job.storage.parallel import Abandoned, in_parallel

Check = Callable[[], None]


def nothing() -> None:
    pass


def test_results_come_in_the_order_of_the_items() -> None:
    second_is_done = threading.Event()

    def work(item: int, check: Check) -> int:
        if item == 1:
            assert second_is_done.wait(20)
        else:
            second_is_done.set()
        return item * 10

    assert in_parallel(work, [1, 2], 2, nothing) == [10, 20]
    assert in_parallel(work, [], 2, nothing) == []


def test_no_more_than_the_width_run_at_once() -> None:
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(2, timeout=20)

    def work(item: int, check: Check) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    in_parallel(work, list(range(6)), 2, nothing)
    assert most == 2


def test_the_first_error_ends_the_wait_and_tells_the_others() -> None:
    told = threading.Event()

    def work(item: str, check: Check) -> None:
        if item == "bad":
            raise ValueError("bad")
        try:
            while True:
                check()
        except Abandoned:
            told.set()
            raise

    with pytest.raises(ValueError, match="bad"):
        in_parallel(work, ["endless", "bad"], 2, nothing)
    assert told.wait(20)


def test_a_stop_does_not_wait_for_work_that_says_nothing() -> None:
    silent, begun = threading.Event(), threading.Event()

    def work(item: int, check: Check) -> None:
        begun.set()
        silent.wait(60)

    def check() -> None:
        if begun.is_set():
            raise Stopped("stop")

    with pytest.raises(Stopped):
        in_parallel(work, [1], 1, check)
    assert not silent.is_set()
    silent.set()


def test_nothing_new_begins_after_an_error() -> None:
    begun: list[int] = []

    def work(item: int, check: Check) -> None:
        begun.append(item)
        raise ValueError

    with pytest.raises(ValueError):
        in_parallel(work, list(range(100)), 1, nothing)
    assert begun == [0]
