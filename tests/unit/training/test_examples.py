"""A row is found in the very step that trains it, and its global batch is laid out as the ranks would have it."""

from collections.abc import Iterator

import numpy as np
import pytest

from job import tiny
from job.prepare import prepare
from job.training.batches import Schedule
from job.training.dataset import PreparedRows
from job.training.examples import Examples
from job.training.measures import layout, lengths
from tests.preparing import chat, ready

ROWS = 21


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedRows]:
    run = ready(tmp_path_factory.mktemp("rows"), [chat(f"a {'b' * at}", "c d") for at in range(ROWS)])
    prepare(run, 0)
    yield PreparedRows(run.prepared)


def examples(rows: PreparedRows, **options: object) -> tuple[Examples, Schedule]:
    given = {"global_batch_size": 4, "epochs": 3.0, "max_steps": None, "seed": 42} | options
    schedule = Schedule(len(rows), **given)  # type: ignore[arg-type]
    return Examples(rows, schedule, tiny.make_tokenizer()), schedule


def test_every_row_is_found_in_the_step_that_trains_it(rows: PreparedRows) -> None:
    found, schedule = examples(rows)
    for row in range(ROWS):
        example = found.example(row)
        assert example["epoch"] == 0 and example["step"] is not None
        assert row in schedule.rows_of(example["step"])
        assert example["source"] == f"chat.jsonl:{row + 1}"


def test_a_row_that_no_step_reaches_is_in_none(rows: PreparedRows) -> None:
    found, schedule = examples(rows, max_steps=2)
    reached = {int(row) for step in (1, 2) for row in schedule.rows_of(step)}
    assert [row for row in range(ROWS) if found.example(row)["step"] is not None] == sorted(reached)


def test_a_row_that_a_weight_leaves_out_of_the_first_epoch_is_found_in_a_later_one(rows: PreparedRows) -> None:
    found, schedule = examples(rows, parts=((ROWS, 0.5),))
    epochs = {}
    for row in range(ROWS):
        step, epochs[row] = found.example(row)["step"], found.example(row)["epoch"]
        assert step is not None and row in schedule.rows_of(step)
    assert set(epochs.values()) == {0, 1}


def test_the_first_rows_come_in_the_order_of_the_steps_and_each_once(rows: PreparedRows) -> None:
    found, schedule = examples(rows)
    assert found.first(1) == [int(schedule.rows_of(1)[0])]
    assert found.first(6) == [int(row) for step in (1, 2) for row in schedule.rows_of(step)][:6]
    assert sorted(found.first(100)) == list(range(ROWS))


def test_the_lessons_are_the_trained_text(rows: PreparedRows) -> None:
    (lesson,) = examples(rows)[0].example(3)["learns"]
    example = examples(rows)[0].example(3)
    assert lesson["text"] == "c d<end_of_turn>\n<eos>"
    assert lesson["last"] == example["tokens"] - 1 and lesson["last"] - lesson["first"] + 1 == example["trained"]


def test_a_batch_names_its_rows_and_where_each_falls(rows: PreparedRows) -> None:
    found, schedule = examples(rows)
    batch = found.batch(2, ranks=2, token_budget=64)
    numbers = [int(row) for row in schedule.rows_of(2)]
    assert [row["row"] for row in batch["rows"]] == numbers
    assert sorted(row for micros in batch["ranks"] for micro in micros for row in micro) == sorted(numbers)
    tokens = {row["row"]: row["tokens"] for row in batch["rows"]}
    assert all(sum(tokens[row] for row in micro) <= 64 for micros in batch["ranks"] for micro in micros)
    assert all(row["words"].startswith("user a b") or row["row"] == 0 for row in batch["rows"])


def test_the_layout_is_measured_over_the_steps_of_an_epoch_and_no_more_than_there_are(rows: PreparedRows) -> None:
    _, schedule = examples(rows)
    found = layout(rows.lengths, schedule, 2, 64)
    assert found["steps"] == schedule.steps_per_epoch and 0 < found["filled"] <= 1 and found["micro_batches"] >= 1
    assert layout(rows.lengths, examples(rows, max_steps=1)[1], 1, 10_000)["micro_batches"] == 1


# ---- the lengths


@pytest.mark.parametrize(
    "tokens", [[5], [19, 19, 19], list(range(1, 200)), [20] * 50 + [5000], [1, 2**20], [1000, 1001, 1010]]
)
def test_the_bins_hold_every_row_once_without_gaps(tokens: list[int]) -> None:
    found = lengths(np.array(tokens))
    bins = found["bins"]
    assert sum(rows for _, _, rows in bins) == len(tokens)
    assert all(sum(least <= one <= most for one in tokens) == rows for least, most, rows in bins)
    assert all(bins[at][1] + 1 == bins[at + 1][0] for at in range(len(bins) - 1))
    assert len(bins) <= 21 and bins[0][2] and bins[-1][2]
    assert (found["shortest"], found["longest"]) == (min(tokens), max(tokens))


def test_a_few_long_rows_do_not_hide_the_others() -> None:
    tokens = np.array([20] * 30 + [40] * 30 + [80] * 30 + [5000])
    assert sum(rows > 0 for _, _, rows in lengths(tokens)["bins"]) == 4
