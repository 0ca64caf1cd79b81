"""Whatever file and format rows come in, the prepared rows are the same; several sources keep their weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from job.prepare import prepare
from job.rundir import Prepare, RunDir
from job.training.batches import Schedule
from job.training.dataset import PreparedRows
from job.training.summary import Summary
from tests import datafiles, preparing
from tests.preparing import chat, failure, train_rows

ROWS = [chat(f"question {number}\n微调", f'"answer" {number}, and more') for number in range(4)]


def tokens(rows: PreparedRows) -> list[tuple[list[int], list[int]]]:
    pairs = [rows.row(index) for index in range(len(rows))]
    return [(ids.tolist(), labels.tolist()) for ids, labels in pairs]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[list[int], list[int]]]:
    run = preparing.ready(tmp_path_factory.mktemp("expected"), datafiles.jsonl(ROWS))
    prepare(run)
    return tokens(train_rows(run))


@pytest.mark.parametrize("name", ["list.json", "splits.json", "c.csv", "c.tsv", "p.parquet", "s.arrow", "a.jsonl.zst"])
def test_every_type_of_file_prepares_the_same_rows(tmp_path: Path, name: str, expected: Any) -> None:
    run = preparing.ready(tmp_path, datafiles.TYPES[name](ROWS), name=name)
    summary = prepare(run)
    assert tokens(train_rows(run)) == expected
    assert summary.formats == ["messages"] and summary.chat


ALPACA = [{"instruction": "Say it.", "input": "microtune", "output": "done"}]


def test_alpaca_is_a_chat_where_there_is_a_template_and_its_own_prompt_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    (tmp_path / "pair").mkdir()
    chatty = preparing.ready(tmp_path / "chat", datafiles.jsonl(ALPACA))
    same = preparing.ready(tmp_path / "chat", [chat("Say it.\n\nmicrotune", "done")])
    summary = prepare(chatty)
    prepare(same)
    assert (summary.formats, summary.chat) == (["alpaca"], True)
    assert tokens(train_rows(chatty)) == tokens(train_rows(same))
    plain = preparing.ready(tmp_path / "pair", datafiles.jsonl(ALPACA), tokenizer="gpt-neo")
    assert not prepare(plain).chat
    ((ids, labels),) = tokens(train_rows(plain))
    assert 0 < sum(label != -100 for label in labels) < len(ids) / 2


def test_a_row_of_another_format_is_named(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [*ROWS, {"text": "a"}])
    assert failure(run) == "s3://data/chat.jsonl:5: no `messages`, which the rows before it have (it has: text)"


# ---- weights


def weighed(tmp_path: Path, *weights: float | None, **options: Any) -> tuple[RunDir, Summary]:
    """Sources of 2, 4, 6, ... rows; the last has its rows in two files."""
    run = preparing.ready(tmp_path, ROWS, **options)
    request = Prepare.read(run)
    listed = []
    for part, weight in enumerate(weights):
        rows = [chat(f"source {part}", f"answer {number}") for number in range(2 * part + 2)]
        cut = len(rows) // 2 if part == len(weights) - 1 else len(rows)
        for number, piece in enumerate((rows[:cut], rows[cut:])):
            path = run.data / f"{part}-{number}.jsonl"
            path.write_bytes(datafiles.jsonl(piece))
            source = {"uri": path.name, "path": str(path), "weight": weight, "part": part}
            listed += [source] if piece else []
    Prepare(request.config, listed, []).write(run)
    return run, prepare(run)


def test_an_epoch_counts_the_rows_of_each_source_by_its_weight(tmp_path: Path) -> None:
    _, summary = weighed(tmp_path, 2.0, None, 0.5)
    assert (summary.rows, summary.epoch_rows) == (12, 4 + 4 + 3)
    assert [tuple(part) for part in summary.parts] == [(2, 2.0), (4, 1.0), (6, 0.5)]


def test_without_weights_or_with_ones_nothing_is_said_of_parts(tmp_path: Path) -> None:
    for weights in ((None, None), (1.0, None)):
        _, summary = weighed(tmp_path, *weights)
        assert (summary.epoch_rows, summary.parts) == (6, [])


def test_what_is_held_out_for_evaluation_is_no_part_of_an_epoch(tmp_path: Path) -> None:
    run, summary = weighed(tmp_path, 2.0, 0.5, eval=0.4)
    assert summary.rows == sum(rows for rows, _ in summary.parts) == 3
    parts = tuple((int(rows), weight) for rows, weight in summary.parts)
    schedule = Schedule(summary.rows, 64, 1, None, 42, parts)
    names = np.array([train_rows(run).source(int(row)) for row in schedule.rows_of(1)])
    for part, (rows, weight) in enumerate(parts):
        assert sum(name.startswith(f"{part}-") for name in names) == (rows * 2 if weight == 2 else (rows + 1) // 2)
