"""Whatever is killed or stopped, at whatever moment: run again, a run ends in the very tensors of one left alone."""

import os

import pytest

from tests.chaos.experiment import Laboratory
from tests.chaos.phases import catalogue
from tests.chaos.series import conduct_all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the whole of a series

SEED = int(os.environ.get("SFT_CHAOS_SEED", "20261"))
RANDOM = 16
CATALOGUE = catalogue(SEED, RANDOM)


def all_hold(laboratory: Laboratory, group: str, every: int = 1, first: int = 0) -> None:
    names = [name for name in CATALOGUE if name.partition("-")[0] == group][first::every]
    print(f"seed {SEED}")
    failures = conduct_all(lambda _: laboratory, {name: CATALOGUE[name] for name in names}, SEED)
    assert not failures, f"seed {SEED}: {len(failures)} of {len(names)} failed\n\n" + "\n\n".join(failures)


def test_a_supervisor_killed_at_every_edge_loses_no_commit(laboratory: Laboratory) -> None:
    all_hold(laboratory, "kill")


def test_a_supervisor_stopped_at_an_edge_commits_the_step_at_which_it_stops(laboratory: Laboratory) -> None:
    """Every third edge; the long mode makes all."""
    all_hold(laboratory, "stop", every=3, first=SEED % 3)


def test_a_rank_killed_at_every_edge_begins_again_in_place(laboratory: Laboratory) -> None:
    all_hold(laboratory, "rank")


def test_one_of_two_ranks_killed_takes_the_other_along_and_both_begin_again(laboratory: Laboratory) -> None:
    all_hold(laboratory, "two")


def test_other_layouts_of_the_state_recover_alike(laboratory: Laboratory) -> None:
    """Every second experiment; the long mode makes all."""
    all_hold(laboratory, "layout", every=2, first=SEED % 2)


def test_runs_on_s3_recover_alike(laboratory_on_s3: Laboratory) -> None:
    all_hold(laboratory_on_s3, "s3")


def test_interruptions_at_random_instants(laboratory: Laboratory) -> None:
    all_hold(laboratory, "random")
