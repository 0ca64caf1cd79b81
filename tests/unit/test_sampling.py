"""Rows and tokens estimated from a sample: near the truth for plain files of any size, and never more than a guess."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.errors import DataError
from job.sampling import SAMPLE_BYTES, Amount, amount, by_bytes, counting
from job.storage.cache import Cache
from job.storage.puller import Pull
from job.tiny import make_tokenizer
from tests.servers import Bucket

TEXT = "Once upon a time there was a small animal that lived by the sea. "


def estimated(tmp_path: Path, train: Any, counter: Any = None, **data: Any) -> Amount:
    tree = {"run": "r", "model": {"base": "b"}, "data": {"train": train, **data}, "lora": {}}
    return amount(RunConfig.from_dict(tree), Pull(Cache(tmp_path / "cache")), counter)


def write(path: Path, rows: int, text: str = TEXT * 3) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for _ in range(rows)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("rows", [3, 20_000])
def test_a_jsonl_files_rows_are_estimated_from_its_beginning(tmp_path: Path, rows: int) -> None:
    source = write(tmp_path / "a.jsonl", rows)
    assert (Path(source).stat().st_size > SAMPLE_BYTES) == (rows > 3)
    found = estimated(tmp_path, [source])
    assert found.rows == pytest.approx(rows, rel=0.01)
    assert found.tokens == pytest.approx(rows * len(TEXT) * 3 / 4, rel=0.15)
    assert not found.measured and "4 bytes a token" in found.how and found.pulled_bytes == 0


def test_a_sorted_file_is_not_judged_by_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "a" * (row // 20)}) + "\n" for row in range(20_000)), encoding="utf-8")
    assert estimated(tmp_path, [str(path)]).rows == pytest.approx(20_000, rel=0.35)


def test_csv_json_and_gzip_are_read_too(tmp_path: Path) -> None:
    csv, listed, packed = tmp_path / "a.csv", tmp_path / "b.json", tmp_path / "c.jsonl.gz"
    csv.write_text("text\n" + f"{TEXT}\n" * 500, encoding="utf-8")
    listed.write_text(json.dumps([{"text": TEXT}] * 500), encoding="utf-8")
    packed.write_bytes(gzip.compress(Path(write(tmp_path / "plain.jsonl", 500)).read_bytes()))
    for path in (csv, listed, packed):
        assert estimated(tmp_path, [str(path)]).rows == pytest.approx(500, rel=0.02), path


def test_what_is_no_text_is_guessed_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(bytes(1_000_000))
    found = estimated(tmp_path, [str(tmp_path / "a.parquet")])
    assert found.tokens > 250_000 and not found.measured


def test_the_runs_own_tokenizer_counts_where_there_is_one(tmp_path: Path) -> None:
    make_tokenizer().backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = counting(tmp_path / "tokenizer.json")
    assert counter is not None
    found = estimated(tmp_path, [write(tmp_path / "a.jsonl", 100, "你好 Hello")], counter)
    assert found.tokens == 100 * (counter(["你好 Hello"])[0] + 4)
    assert "the run's tokenizer" in found.how
    assert counting(tmp_path / "other.json") is None


def test_weights_shares_and_overlong_rows_count(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", 100)
    assert estimated(tmp_path, [{"uri": source, "weight": 2}]).rows == 200
    assert estimated(tmp_path, [source], eval=0.2).rows == 80
    assert estimated(tmp_path, [source], max_length=32, overlong="truncate").tokens == 100 * 32
    assert estimated(tmp_path, [source], max_length=32, overlong="split").rows == 200
    assert estimated(tmp_path, [source], max_length=32, overlong="drop").rows < 200


def test_only_the_columns_that_are_learned_from_count(tmp_path: Path) -> None:
    rows = [{"question": TEXT, "answer": TEXT, "notes": TEXT * 50}] * 50
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = {"prompt": "Q: {question}", "completion": "answer"}
    found = estimated(tmp_path, [str(tmp_path / "a.jsonl")], columns=columns)
    assert found.tokens < 50 * (2 * len(TEXT) / 4 + 10)


def test_cjk_takes_fewer_bytes_a_token() -> None:
    assert by_bytes(["你好" * 10, "abcd" * 10]) == [24, 10]


def test_on_s3_a_large_file_is_sampled_and_not_pulled(tmp_path: Path, s3: Bucket) -> None:
    s3.client().upload_file(write(tmp_path / "a.jsonl", 20_000), s3.name, "data/a.jsonl")
    found = estimated(tmp_path, [f"s3://{s3.name}/data/*.jsonl"])
    assert found.rows == pytest.approx(20_000, rel=0.01)
    assert found.pulled_bytes == (tmp_path / "a.jsonl").stat().st_size
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < SAMPLE_BYTES


def test_data_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        estimated(tmp_path, [str(tmp_path / "lost.jsonl")])
