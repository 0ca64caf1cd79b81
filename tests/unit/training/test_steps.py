"""A rank's shares of the steps that are left, and randomness that is a function of seed, step and rank."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from job.training.batches import Schedule
from job.training.dataset import PreparedRows, RowWriter, table_of
from job.training.encode import Encoded
from job.training.loss import MASKED
from job.training.steps import Agreement, Layout, StepBatch, StepLoader, seed_everything, shares

ROWS = 10
FIRST_ID = 100


@pytest.fixture
def rows(tmp_path: Path) -> PreparedRows:
    """Row n is made of n + 2 tokens FIRST_ID + n; all but the first are trained."""
    writer = RowWriter(tmp_path)
    same = ([FIRST_ID + n] * (n + 2) for n in range(ROWS))
    writer.write(table_of([(Encoded(ids, ids, ()), f"r:{n}") for n, ids in enumerate(same)]))
    writer.close()
    return PreparedRows(tmp_path)


def loader(rows: PreparedRows, schedule: Schedule, rank: int = 0, world_size: int = 1, done: int = 0) -> StepLoader:
    at = Layout(rank, world_size, token_budget=15, padded=False, device=torch.device("cpu"))
    return StepLoader(rows, schedule, lambda: at, done, lambda: False)


def trained_rows(batch: StepBatch) -> list[int]:
    """Each row once per trained token."""
    targets = torch.cat([micro.targets.flatten() for micro in batch.micros])
    return sorted(int(token) - FIRST_ID for token in targets[targets != MASKED])


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_over_all_ranks_a_step_trains_its_rows_and_counts_their_tokens(rows: PreparedRows, world_size: int) -> None:
    schedule = Schedule(ROWS, 4, 1, None, 5)
    ranks = [list(loader(rows, schedule, rank, world_size)) for rank in range(world_size)]
    for step in range(1, schedule.steps + 1):
        shares = [rank[step - 1] for rank in ranks]
        assert {share.step for share in shares} == {step}
        assert len({len(share.micros) for share in shares}) == 1
        expected = sorted(int(row) for row in schedule.rows_of(step) for _ in range(row + 1))
        assert sorted(row for share in shares for row in trained_rows(share)) == expected
        assert {share.trained_tokens for share in shares} == {len(expected)}


IDS = {1: [2, 3, 4, 9], 2: [0, 1, 5, 6], 3: [7, 8], 4: [1, 4, 5, 7]}


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("token_budget", [5, 15, 1000])
@pytest.mark.parametrize("done", [0, 2])
def test_the_rows_of_a_step_are_these_whatever_ranks_micro_batches_and_resume_point(
    rows: PreparedRows, world_size: int, token_budget: int, done: int
) -> None:
    schedule = Schedule(ROWS, 4, 2, None, 5)
    for step in range(done + 1, 5):
        ids = schedule.rows_of(step).tolist()
        ranks = [Layout(rank, world_size, token_budget, False, torch.device("cpu")) for rank in range(world_size)]
        laid = [row for at in ranks for micro, _ in shares(rows, ids, at) for row in micro]
        assert sorted(laid) == IDS[step]


def test_a_resumed_loader_goes_on_where_the_other_ended_and_stops_at_each_epochs_end(rows: PreparedRows) -> None:
    schedule = Schedule(ROWS, 4, 2, None, 5)
    whole = loader(rows, schedule)
    assert [[batch.step for batch in whole] for _ in range(3)] == [[1, 2, 3], [4, 5, 6], []]
    for done in range(6):
        resumed = loader(rows, schedule, done=done)
        steps = [batch for _ in range(2) for batch in resumed]
        assert [batch.step for batch in steps] == list(range(done + 1, 7))


def test_max_steps_ends_in_the_middle_of_an_epoch(rows: PreparedRows) -> None:
    assert [batch.step for batch in loader(rows, Schedule(ROWS, 4, 9, 2, 5))] == [1, 2]


def test_no_step_is_given_out_once_the_attempt_is_over(rows: PreparedRows) -> None:
    over: list[bool] = []
    at = Layout(0, 1, 100, False, torch.device("cpu"))
    steps = iter(StepLoader(rows, Schedule(ROWS, 2, 1, None, 5), lambda: at, 0, lambda: bool(over)))
    assert next(steps).step == 1
    over.append(True)
    assert list(steps) == []


def test_the_randomness_of_a_step_follows_from_seed_step_and_rank_alone() -> None:
    def draws(seed: int, step: int, rank: int) -> tuple[float, ...]:
        seed_everything(seed, step, rank)
        return (float(torch.rand(1)), random.random(), float(np.random.rand()))

    first = draws(42, 7, 0)
    torch.rand(5)
    assert draws(42, 7, 0) == first
    others = {draws(*key) for key in [(42, 7, 0), (43, 7, 0), (42, 8, 0), (42, 7, 1), (42, 0, 7), (7, 42, 0)]}
    assert len(others) == 6


def test_a_single_rank_agrees_with_itself() -> None:
    assert Agreement(1).sum(True, False, 2.5) == [1.0, 0.0, 2.5]
