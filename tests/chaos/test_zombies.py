"""Two attempts at one run: the newer one wins, whenever the older one wakes up; by mistake there is never a second."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit, step_of
from tests.chaos.experiment import LAYOUTS, STEPS, Laboratory
from tests.chaos.judge import finished, judge_commits, launches, tensors
from tests.chaos.observing import SUPERVISOR, Deed
from tests.chaos.zombie import Zombie, start_with
from tests.harness import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

STOPPED_AT = {
    "in a step": Deed("rank-0", r"event step 7$", "SIGSTOP"),
    "while uploading": Deed(SUPERVISOR, r"after upload checkpoints/.*state", "SIGSTOP", nth=2),
    "before its commit record": Deed(SUPERVISOR, r"before put_if_absent commits/", "SIGSTOP", nth=2),
    "while pruning": Deed(SUPERVISOR, r"after delete commits/", "SIGSTOP"),
    "before its last commit record": Deed(SUPERVISOR, r"before put_if_absent commits/\d+-0*20\.json", "SIGSTOP"),
    "while its result goes up": Deed(SUPERVISOR, r"after upload final/", "SIGSTOP"),
    "before result.json": Deed(SUPERVISOR, r"before put_if_absent final/result\.json", "SIGSTOP"),
}
PATIENT = {"after the watch time": STOPPED_AT["before its commit record"]}


def overtaken(laboratory: Laboratory, place: str, deed: Deed, options: list[str]) -> None:
    name = f"zombie {place}".replace(" ", "-")
    zombie = start_with(laboratory, name, LAYOUTS["one"], deed)
    zombie.stop()
    store = laboratory.store(name)
    before = commit_keys(store)
    successor = laboratory.start(name, LAYOUTS["one"], "home2", options)
    assert successor.ended() == ExitCode.DONE, successor.said()
    result, chosen = finished(store), commit_keys(store)[0]
    zombie.go_on()
    code = zombie.job.ended()
    assert code == ExitCode.FENCED, f"{place}: exit {code}\n{zombie.job.said()}"
    assert "attempt 2 took over" in zombie.job.said().splitlines()[-1]
    assert finished(store) == result and result is not None and result.attempt == 2 and result.folder == "final/0002"
    newest = newest_of(before)
    successors = 1 if newest == STEPS else 2  # all was trained and committed: there was nothing left to commit
    assert commit_keys(store)[0] == chosen == result.commit and read_commit(store, chosen).attempt == successors
    late = {key for key in commit_keys(store) if key.startswith("commits/0001-")} - set(before)
    assert len(late) <= int("commits/" in deed.pattern and deed.pattern.startswith("before")), f"late commits: {late}"
    assert not store.list("attempts/0001-end"), "a fenced attempt says nothing about the run's end"
    told = launches(laboratory.folder / name / "seen" / "home2" / "ledger")
    assert [launch.resume for launch in told] == [newest], "the successor goes on from the newest commit"
    judge_commits(store, of_attempts=[successors])  # a late one of the older may name files that were swept already
    assert tensors(store, laboratory.folder / name / "final") == laboratory.left_alone("one").tensors


def newest_of(keys: list[str]) -> int:
    return step_of(keys[0]) if keys else 0


def several(*stories: Callable[[], None]) -> None:
    """At once: most of their time they wait."""
    with ThreadPoolExecutor(4) as pool:
        for story in [pool.submit(story) for story in stories]:
            story.result()


@pytest.mark.parametrize(
    "place",
    STOPPED_AT,
)
def test_a_supervisor_that_was_stopped_and_taken_over_leaves_with_76_and_nothing_of_it_counts(
    laboratory: Laboratory, place: str
) -> None:
    overtaken(laboratory, place, STOPPED_AT[place], ["--take-over"])


def test_a_supervisor_that_stands_still_is_overtaken_without_insisting_once_it_was_watched(
    laboratory: Laboratory,
) -> None:
    for place, deed in PATIENT.items():
        overtaken(laboratory, place, deed, [])


def held_at_step_4(laboratory: Laboratory, name: str, home: str = "home") -> Zombie:
    """Its rank is stopped there and its supervisor beats on: a run that lasts as long as the test needs."""
    return start_with(laboratory, name, LAYOUTS["one"], Deed("rank-0", r"event step 4$", "SIGSTOP", "rank-0"), home)


def test_a_second_job_by_mistake_leaves_with_77_and_the_first_goes_on_undisturbed(laboratory: Laboratory) -> None:
    first = held_at_step_4(laboratory, "mistaken")
    store = laboratory.store("mistaken")
    before = {entry.key for entry in store.list("attempts/")}
    second = laboratory.start("mistaken", LAYOUTS["one"], "home2")
    assert second.ended() == ExitCode.BUSY, second.said()
    assert "is being run by attempt 1" in second.said().splitlines()[-1]
    assert {entry.key for entry in store.list("attempts/")} == before
    assert not first.job.over()
    first.go_on()
    assert first.job.ended() == ExitCode.DONE, first.job.said()
    told = launches(laboratory.folder / "mistaken" / "seen" / "home" / "ledger")
    assert [launch.attempt for launch in told] == [1]
    assert tensors(store, laboratory.folder / "mistaken" / "final") == laboratory.left_alone("one").tensors


def test_of_two_attempts_started_at_once_exactly_one_trains(laboratory: Laboratory) -> None:
    several(*(lambda number=number: started_at_once(laboratory, f"pair-{number}") for number in range(3)))


def started_at_once(laboratory: Laboratory, name: str) -> None:
    held = Deed("rank-0", r"event step 4$", "SIGSTOP", "rank-0")
    homes = ("home", "home2")
    both = [
        Zombie(
            laboratory.start(name, LAYOUTS["one"], home, deed=held), laboratory.folder / name / "seen" / home / "done"
        )
        for home in homes
    ]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(each.job.over() for each in both) and time.monotonic() < deadline:
        time.sleep(0.05)
    loser, winner = sorted(both, key=lambda each: not each.job.over())
    assert loser.job.ended() == ExitCode.BUSY, loser.job.said()
    winner.wait_until_done()
    winner.go_on()
    assert winner.job.ended() == ExitCode.DONE, winner.job.said()
    store = laboratory.store(name)
    assert [entry.key for entry in store.list("attempts/") if entry.key.count("-") == 0 and "0" in entry.key] == [
        "attempts/0001.json"
    ]
    ledgers = [laboratory.folder / name / "seen" / home / "ledger" for home in homes]
    assert sum(len(launches(ledger)) for ledger in ledgers) == 1
    assert json.loads(store.get("attempts/0001-end.json"))["code"] == ExitCode.DONE
    assert tensors(store, laboratory.folder / name / "final") == laboratory.left_alone("one").tensors
