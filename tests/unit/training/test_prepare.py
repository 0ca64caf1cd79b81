"""Files go in; either whole prepared rows come out, or one line that names file, line and reason, and nothing else."""

import json
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from job.config import RunConfig, load_config
from job.prepare import prepare
from job.rundir import RunDir
from job.training.batching import held_out
from job.training.summary import Summary
from tests import preparing, standins
from tests.preparing import chat, chats, failure, sources, train_rows

ROOT = Path(__file__).parents[3]
Ready = Callable[..., RunDir]


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return partial(preparing.ready, tmp_path)


# ---- the tutorials


@pytest.mark.parametrize("shape", ["messages", "conversation"])
def test_the_gemma_recipe_prepares_the_golden_row_from_either_shape(ready: Ready, tmp_path: Path, shape: str) -> None:
    data = recipe("gemma-one-sentence").to_dict()["data"]
    options = {name: value for name, value in data.items() if name != "train"}
    run = ready(standins.write_conversation(tmp_path / "one.jsonl", shape).read_bytes(), **options)
    summary, rows = prepare(run), train_rows(run)
    golden = json.loads((ROOT / "tests/golden/gemma-one-sentence.json").read_text(encoding="utf-8"))
    assert [part.tolist() for part in rows.row(0)] == [golden["input_ids"], golden["labels"]]
    assert summary == Summary.read(run.prepared / "summary.json")
    assert (summary.rows, summary.eval_rows, summary.chat, summary.end_of_turn_ids) == (1, 0, True, [107, 1])
    assert (summary.tokens, summary.trained_tokens, summary.longest_row) == (19, 5, 19)
    assert (summary.bos_per_row, summary.formats, summary.end_of_turn_rate) == ([1, 1], [shape], 1.0)
    assert summary.chat_template is not None and "raise_exception" in summary.chat_template


def test_the_tinystories_recipe_prepares_the_golden_rows(ready: Ready) -> None:
    data = recipe("tinystories-backstories").to_dict()["data"]
    options = {name: value for name, value in data.items() if name != "train"}
    run = ready([standins.backstory(number) for number in range(30)], tokenizer="gpt-neo", **options)
    summary = prepare(run)
    golden = json.loads((ROOT / "tests/golden/tinystories-backstories.json").read_text(encoding="utf-8"))
    found = {}
    for rows in (train_rows(run), train_rows(run, "eval")):
        found |= {rows.source(index): rows.row(index) for index in range(len(rows))}
    for number, ids in enumerate(golden):
        assert [part.tolist() for part in found[f"chat.jsonl:{number + 1}"]] == [ids, ids]
    assert (summary.rows, summary.eval_rows, summary.chat, summary.truncated) == (24, 6, False, 10)
    assert "10 of 30 rows cut" in summary.warnings[0] and summary.longest_row == 128
    assert summary.chat_template is None


def recipe(name: str) -> RunConfig:
    with resources.as_file(resources.files("job.recipes").joinpath(f"{name}.yaml")) as path:
        return load_config(path)


# ---- the split


def test_a_share_is_split_off_by_seed_whole_and_without_overlap(ready: Ready) -> None:
    run = ready(chats(21), eval=0.2)
    prepare(run)
    train, held = sources(train_rows(run)), sources(train_rows(run, "eval"))
    assert len(held) == 5  # rounded up
    assert sorted(train + held) == sorted(f"chat.jsonl:{line}" for line in range(1, 22))
    assert train == sorted(train, key=lambda place: int(place.split(":")[1]))
    again = ready([chat("other", "words")] * 21, eval=0.2)
    prepare(again)
    assert sources(train_rows(again, "eval")) == held  # the rows' content has no part in it
    other = ready(chats(21), eval=0.2, seed=43)
    prepare(other)
    assert sources(train_rows(other, "eval")) != held


def test_the_split_of_the_backstories_holds_465_rows_and_never_changes() -> None:
    assert held_out(2322, 0.2, 42).sum() == 465
    assert held_out(10, 0.3, 42).nonzero()[0].tolist() == [4, 5, 9]


def test_evaluation_may_have_its_own_file(ready: Ready) -> None:
    run = ready(chats(3), chats(2))
    summary = prepare(run)
    assert (summary.rows, summary.eval_rows) == (3, 2)
    assert sources(train_rows(run, "eval")) == ["eval.jsonl:1", "eval.jsonl:2"]


def test_a_share_that_leaves_nothing_to_train_on_is_refused(ready: Ready) -> None:
    assert "data.eval: 0.5 of 1 rows leaves none to train on" in failure(ready(chats(1), eval=0.5))


def test_an_empty_evaluation_file_is_refused(ready: Ready) -> None:
    assert failure(ready(chats(2), [])).startswith("data.eval: no row to use")
