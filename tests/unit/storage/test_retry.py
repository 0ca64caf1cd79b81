"""Patience: passing faults are tried again until time is up, everything else is said at once."""

from itertools import pairwise
from pathlib import Path

import pytest

from job.errors import Stopped, StorageError
from job.storage.memory import MemoryStore
from job.storage.retry import RetryingStore
from job.storage.store import Entry, NotFound, Progress, Transient, Unreachable


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


class Flaky(MemoryStore):
    """Raises what it is told to, then works."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("flaky")
        self.errors, self.calls = list(errors), 0
        self.clock, self.times = Clock(), list[float]()

    def get(self, key: str) -> bytes:
        self.calls += 1
        self.times.append(self.clock())
        if self.errors:
            raise self.errors.pop(0)
        return super().get(key)

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        if self.errors:
            if progress:
                progress(2)
            raise self.errors.pop(0)
        return super().download(key, path, progress, expect)


def retrying(inner: Flaky, seconds: float = 900) -> tuple[RetryingStore, Clock]:
    clock = Clock()
    inner.put("k", b"12345")
    return RetryingStore(inner, seconds, sleep=clock.sleep, clock=clock), clock


def test_passing_faults_are_tried_again_with_growing_pauses() -> None:
    inner = Flaky(*[Unreachable("away")] * 6)
    store, inner.clock = retrying(inner)
    assert store.get("k") == b"12345"
    pauses = [after - before for before, after in pairwise(inner.times)]
    assert len(pauses) == 6
    assert pauses[0] < 1 < 8 <= pauses[5] <= 30


def test_a_stop_is_heard_within_a_second_of_waiting() -> None:
    clock = Clock()
    inner = Flaky(*[Unreachable("away")] * 1000)
    store = RetryingStore(inner, 900, sleep=clock.sleep, clock=clock, stopped=lambda: clock.now >= 20)
    with pytest.raises(Stopped, match="stopped while waiting for memory://flaky"):
        store.get("k")
    assert 20 <= clock.now <= 21


def test_a_stop_ends_a_transfer_where_it_is(tmp_path: Path) -> None:
    inner = Flaky()
    inner.put("k", b"12345")
    store = RetryingStore(inner, 900, stopped=lambda: True)
    with pytest.raises(Stopped, match="in the middle of a transfer"):
        store.download("k", tmp_path / "k")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("error", [StorageError("403"), NotFound("no"), Stopped("stop"), ValueError("bug")])
def test_other_errors_are_raised_at_once(error: Exception) -> None:
    inner = Flaky(error)
    store, clock = retrying(inner)
    with pytest.raises(type(error)) as caught:
        store.get("k")
    assert caught.value is error
    assert inner.calls == 1
    assert clock.pauses == []


def test_it_gives_up_in_time_with_the_last_error_and_an_honest_count() -> None:
    inner = Flaky(*[Transient("first")] * 3, *[Unreachable("s3://b is away")] * 1000)
    store, clock = retrying(inner, seconds=100)
    with pytest.raises(Unreachable) as caught:
        store.get("k")
    assert str(caught.value) == f"s3://b is away (gave up after {clock.now:.0f} s and {inner.calls} tries)"
    assert 60 < clock.now <= 100


def test_each_call_has_its_own_time() -> None:
    inner = Flaky()
    store, clock = retrying(inner, seconds=32)
    for _ in range(3):
        inner.errors = [Transient("away")] * 5
        assert store.get("k") == b"12345"
    assert clock.now > 32, "more than one call may take"


def test_progress_of_a_try_that_failed_is_taken_back(tmp_path: Path) -> None:
    store, _ = retrying(Flaky(Transient("away"), Transient("away")))
    counts: list[int] = []
    store.download("k", tmp_path / "k", progress=counts.append)
    assert sum(counts) == 5
    assert sum(count for count in counts if count < 0) == -4


def test_a_stop_raised_by_progress_is_heard_while_waiting(tmp_path: Path) -> None:
    store, clock = retrying(Flaky(*[Transient("away")] * 50))

    def stop(count: int) -> None:
        if clock.now > 10:
            raise Stopped("stop")

    with pytest.raises(Stopped):
        store.download("k", tmp_path / "k", progress=stop)
    assert clock.now < 13
