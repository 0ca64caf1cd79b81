"""Medians of what the events tell; nothing where nothing was told."""

from job.measured import Measured


def test_nothing_is_known_before_the_first_event() -> None:
    measured = Measured()
    assert measured.step_seconds is None and measured.snapshot_seconds is None and measured.upload_seconds is None


def test_one_slow_step_does_not_make_steps_slow() -> None:
    measured = Measured()
    measured.saw([{"kind": "step", "seconds": seconds} for seconds in (1.0, 1.0, 90.0, 1.0, 1.0)])
    assert measured.step_seconds == 1.0


def test_a_snapshot_takes_from_the_boundary_until_it_is_on_disk() -> None:
    measured = Measured()
    measured.saw([{"kind": "snapshot", "blocked_seconds": 0.5}])
    assert measured.blocked_seconds == 0.5 and measured.snapshot_seconds is None
    measured.saw([{"kind": "snapshot_written", "seconds": 2.0}])
    assert measured.snapshot_seconds == 2.5


def test_old_uploads_are_forgotten() -> None:
    measured = Measured()
    for seconds in [100.0] * 10 + [1.0] * 5:
        measured.uploaded(seconds)
    assert measured.upload_seconds == 1.0
