"""What earlier attempts say about the next one: only those that died after a step without a commit count against it."""

import pytest

from job.errors import DataError, ExitCode, NoProgress
from job.storage.attempts import Owner, beat, write_end
from job.storage.history import history, refuse_futile, refuse_lost
from job.storage.memory import MemoryStore
from job.storage.store import ObjectStore
from tests.claiming import record

CONFIG = {"train": {"epochs": 1}}


@pytest.fixture
def store() -> ObjectStore:
    return MemoryStore()


def attempt(store: ObjectStore, number: int, code: int | None, stepped: bool = True, config: object = CONFIG) -> Owner:
    owner = record(store, number, config=config)
    if code is None:
        beat(store, owner, 3, stepped, 50.0)
    else:
        write_end(store, owner, code, f"ended with {code}", 0, stepped, 50.0)
    return owner


def check(store: ObjectStore, config: dict[str, object] = CONFIG, version: str = "0") -> None:
    refuse_futile(store, history(store), config, version)


def test_a_new_run_has_no_history(store: ObjectStore) -> None:
    assert history(store) == []
    check(store)


@pytest.mark.parametrize("code", [ExitCode.CRASHED, None])
def test_the_third_crash_or_disappearance_in_a_row_ends_the_run_and_names_them(
    store: ObjectStore, code: int | None
) -> None:
    for number in (1, 2):
        attempt(store, number, code)
    check(store)
    attempt(store, 3, code)
    with pytest.raises(NoProgress, match=r"attempts 1, 2 and 3 of .* --try-again"):
        check(store)


@pytest.mark.parametrize("code", [ExitCode.STOPPED, ExitCode.STORAGE, ExitCode.FENCED, ExitCode.HARDWARE])
def test_what_the_machines_did_never_counts(store: ObjectStore, code: int) -> None:
    for number in range(1, 9):
        attempt(store, number, code)
    check(store)


def test_it_says_where_to_look_for_the_cause(store: ObjectStore) -> None:
    for number in (1, 2, 3):
        attempt(store, number, None)
    with pytest.raises(NoProgress, match=r"see the log of the job that ran attempt 3 on .*; mend the cause"):
        check(store)
    store.put("attempts/0002-rank-1.log", b"Traceback")
    with pytest.raises(NoProgress, match=r"see memory://.*/attempts/0002-rank-1.log; mend the cause") as caught:
        check(store)
    assert "\n" not in str(caught.value)


def test_a_preemption_between_crashes_changes_nothing(store: ObjectStore) -> None:
    for number, code in enumerate([70, 75, None, 75, 75, 70], start=1):
        attempt(store, number, code)
    with pytest.raises(NoProgress, match="attempts 1, 3 and 6"):
        check(store)


def test_dying_before_the_first_step_is_not_counted_here(store: ObjectStore) -> None:
    for number in range(1, 6):
        attempt(store, number, ExitCode.CRASHED, stepped=False)
    check(store)


def test_a_commit_in_between_is_progress(store: ObjectStore) -> None:
    for number in (1, 2, 3, 4):
        attempt(store, number, ExitCode.CRASHED)
    store.put("commits/0002-00000010.json", b"{}")
    check(store)
    attempt(store, 5, ExitCode.CRASHED)
    with pytest.raises(NoProgress, match="attempts 3, 4 and 5"):
        check(store)


def test_another_config_or_version_is_a_reason_to_try_anew(store: ObjectStore) -> None:
    for number in (1, 2, 3):
        attempt(store, number, ExitCode.CRASHED)
    check(store, {"train": {"epochs": 2}})
    check(store, version="9")
    attempt(store, 4, ExitCode.CRASHED, config={"train": {"epochs": 2}})
    check(store, {"train": {"epochs": 2}})


def test_lifetimes_are_known_of_attempts_that_ended_and_of_those_that_vanished(store: ObjectStore) -> None:
    attempt(store, 1, ExitCode.STOPPED)
    attempt(store, 2, None)
    record(store, 3)
    assert [(one.code, one.seconds, one.interrupted) for one in history(store)] == [
        (None, 0.0, True),
        (None, 50.0, True),
        (ExitCode.STOPPED, 50.0, True),
    ]


def test_a_run_whose_commits_were_deleted_is_never_begun_anew_in_silence(store: ObjectStore) -> None:
    refuse_lost(store.uri, history(store))
    attempt(store, 1, ExitCode.STOPPED)  # it ended before the first commit
    refuse_lost(store.uri, history(store))
    write_end(store, record(store, 2, config=CONFIG), ExitCode.STOPPED, "stopped", 40, True, 50.0)
    attempt(store, 3, None)
    with pytest.raises(DataError, match=r"has no commit, though attempt 2 ended on one of step 40"):
        refuse_lost(store.uri, history(store))
