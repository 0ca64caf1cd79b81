"""The time before the deadline: a checkpoint only if it fits, else the upload under way, else nothing."""

from hypothesis import assume, example, given
from hypothesis import strategies as st

from job.host.budget import (
    MARGIN,
    RESERVE_SECONDS,
    UPLOAD_SHARE,
    Durations,
    decide,
    ranks_deadline,
    snapshot_deadline,
)

some_seconds = st.floats(0, 1e5)
measured_or_not = st.builds(Durations, *(st.none() | some_seconds for _ in range(3)))
measured = st.builds(Durations, some_seconds, some_seconds, some_seconds)
left = st.floats(-100, 1e6)
in_flight = st.none() | some_seconds


def test_what_fits_with_room_to_spare_is_tried() -> None:
    assert decide(30, 30, Durations(step=2, snapshot=1, upload=10)) == "checkpoint"
    assert decide(120, 120, Durations(step=60, snapshot=5, upload=20)) == "checkpoint"


def test_a_step_that_is_too_long_leaves_the_last_commit() -> None:
    assert decide(30, 30, Durations(step=25, snapshot=1, upload=2)) == "leave"


def test_an_upload_that_is_too_long_leaves_the_last_commit() -> None:
    assert decide(30, 30, Durations(step=1, snapshot=1, upload=40)) == "leave"


def test_the_upload_under_way_is_finished_where_a_new_checkpoint_does_not_fit() -> None:
    slow = Durations(step=25, snapshot=1, upload=8)
    assert decide(30, 30, slow, in_flight_seconds=3) == "finish_upload"
    assert decide(30, 30, slow) == "leave"


def test_a_new_upload_waits_for_the_one_under_way() -> None:
    uploads = Durations(step=1, snapshot=1, upload=13)
    assert decide(30, 30, uploads) == "checkpoint"
    assert decide(30, 30, uploads, in_flight_seconds=9) == "checkpoint"
    assert decide(30, 30, uploads, in_flight_seconds=0) == "finish_upload"


def test_an_upload_that_is_overdue_says_that_uploads_are_slow_now() -> None:
    usually_quick = Durations(step=1, snapshot=1, upload=2)
    assert decide(30, 30, usually_quick, in_flight_seconds=1) == "checkpoint"
    assert decide(30, 30, usually_quick, in_flight_seconds=20) == "finish_upload"


def test_nothing_measured_yet_a_checkpoint_is_tried_and_a_share_kept_for_its_upload() -> None:
    assert decide(30, 30, Durations()) == "checkpoint"
    assert ranks_deadline(30, 30, Durations()) == 30 - RESERVE_SECONDS - UPLOAD_SHARE * 30
    assert snapshot_deadline(30, 30, Durations(snapshot=3)) == 30 - RESERVE_SECONDS - UPLOAD_SHARE * 30
    assert decide(11, 30, Durations()) == "leave"


def test_the_ranks_have_until_snapshot_and_upload_just_fit() -> None:
    times = Durations(step=2, snapshot=4, upload=8)
    assert snapshot_deadline(30, 30, times) == 30 - RESERVE_SECONDS - MARGIN * 8
    assert ranks_deadline(30, 30, times) == 30 - RESERVE_SECONDS - MARGIN * (8 + 4)
    assert ranks_deadline(10, 30, times) <= 0


def test_without_a_deadline_there_is_time_for_everything() -> None:
    endless = float("inf")
    for times in (Durations(), Durations(1, 1, 1)):
        assert decide(endless, endless, times) == decide(endless, endless, times, 5) == "checkpoint"
        assert ranks_deadline(endless, endless, times) == endless


@given(left, some_seconds, measured, in_flight)
def test_a_checkpoint_is_never_begun_where_the_sum_does_not_fit(
    left_seconds: float, budget: float, times: Durations, uploading: float | None
) -> None:
    assume(decide(left_seconds, budget, times, uploading) == "checkpoint")
    assert times.step is not None and times.snapshot is not None and times.upload is not None
    ready = times.step + times.snapshot
    if uploading is not None:
        ready = max(ready, times.upload - uploading)
    assert ready + times.upload + RESERVE_SECONDS <= left_seconds + 1e-6


@given(left, some_seconds, measured_or_not, in_flight)
def test_what_is_known_fits_even_where_the_rest_was_never_measured(
    left_seconds: float, budget: float, times: Durations, uploading: float | None
) -> None:
    assume(decide(left_seconds, budget, times, uploading) == "checkpoint")
    known = sum(seconds or 0.0 for seconds in (times.step, times.snapshot, times.upload))
    kept = UPLOAD_SHARE * budget if times.upload is None else 0.0
    assert known + kept + RESERVE_SECONDS <= left_seconds + 1e-6


@given(left, left, some_seconds, measured_or_not, in_flight)
@example(2.0, 2.5, 0.0, Durations(), None)
def test_more_time_never_means_less(
    one: float, other: float, budget: float, times: Durations, uploading: float | None
) -> None:
    less, more = sorted((one, other))
    order = ("leave", "finish_upload", "checkpoint")
    first, second = (decide(seconds, budget, times, uploading) for seconds in (less, more))
    assert order.index(first) <= order.index(second)
    assert ranks_deadline(less, budget, times, uploading) <= ranks_deadline(more, budget, times, uploading)
    assert snapshot_deadline(less, budget, times, uploading) <= snapshot_deadline(more, budget, times, uploading)


@given(left, some_seconds, measured_or_not, in_flight)
def test_an_upload_is_finished_only_where_one_is_under_way_and_the_end_record_still_fits(
    left_seconds: float, budget: float, times: Durations, uploading: float | None
) -> None:
    if decide(left_seconds, budget, times, uploading) == "finish_upload":
        assert uploading is not None and left_seconds > RESERVE_SECONDS


@given(st.floats(0.5, 1e5), some_seconds, measured, in_flight)
def test_time_is_left_for_the_ranks_whenever_a_checkpoint_is_begun(
    left_seconds: float, budget: float, times: Durations, uploading: float | None
) -> None:
    assume(decide(left_seconds, budget, times, uploading) == "checkpoint")
    assert times.step is not None
    assert ranks_deadline(left_seconds, budget, times, uploading) >= times.step
