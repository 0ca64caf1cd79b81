"""A clock that is off is told by how much, and only once no way of the answer could explain it."""

import time
from email.utils import formatdate

import pytest

from job.storage.clock import clock_finding, clock_skew, probe_clock
from job.storage.finding import Status
from job.storage.store import NO_OPTIONS
from tests.servers import Bucket, free_port

NOON = 1_800_000_000.0


@pytest.mark.parametrize(
    ("sent", "received", "skew"),
    [
        (NOON, NOON + 0.1, 0.0),
        (NOON + 0.9, NOON + 1.5, 0.0),  # a date is cut to its second
        (NOON - 20, NOON + 20, 0.0),  # a slow answer
        (NOON + 120, NOON + 121, 119.0),
        (NOON - 121, NOON - 120, -120.0),
    ],
)
def test_the_least_skew_that_explains_the_date_counts(sent: float, received: float, skew: float) -> None:
    assert clock_skew(formatdate(NOON, usegmt=True), sent, received) == skew


@pytest.mark.parametrize(
    ("skew", "status", "seen"),
    [
        (0.0, Status.OK, ""),
        (5.0, Status.OK, "5 s ahead of the store"),
        (-100.0, Status.WARNING, "100 s behind the store"),
        (900.0, Status.MISSING, "900 s ahead of the store"),
        (-1000.0, Status.MISSING, "1000 s behind the store"),
        (None, Status.NOT_TRIED, ""),
    ],
)
def test_what_a_store_would_refuse_is_missing(skew: float | None, status: Status, seen: str) -> None:
    found = clock_finding(skew)
    assert (found.status, found.seen) == (status, seen)


@pytest.mark.parametrize(("ahead", "status"), [(0.0, Status.OK), (3600.0, Status.MISSING)])
def test_the_date_of_a_real_answer_is_read(s3: Bucket, ahead: float, status: Status) -> None:
    clock, answered = probe_clock(f"{s3.uri}/run", NO_OPTIONS, lambda: time.time() + ahead)
    assert clock.status == status
    assert "5s to connect, 30s to read" in answered.seen


def test_where_nobody_answers_nothing_is_said_of_clocks(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert list(probe_clock(f"{s3.uri}/run", NO_OPTIONS)) == []


def test_a_refusal_has_a_date_too(s3: Bucket) -> None:
    assert next(probe_clock("s3://no-such-bucket/run", NO_OPTIONS)).status == Status.OK


def test_what_is_no_date_says_nothing() -> None:
    assert clock_skew("yesterday", NOON, NOON) is None
