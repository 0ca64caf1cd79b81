"""A file's name says its type and its split, and what lies beside data is none."""

import pytest

from job.filetypes import is_data, split_of, type_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.json", "json"), ("a.csv", "csv"), ("a.tsv.gz", "tsv"),
        ("a.jsonl.zst", "jsonl"), ("a.json.zstd", "json"), ("a.parquet", "parquet"), ("a.arrow", "arrow"),
        ("a.feather", "arrow"), ("a.parquet.gz", None), ("a.gz", None), ("a.txt", None), ("README.md", None),
        ("a", None),
    ],
)  # fmt: skip
def test_the_type_is_that_of_the_ending(name: str, kind: str | None) -> None:
    assert type_of(name) == kind


@pytest.mark.parametrize(
    "name",
    ["README.md", ".hidden.jsonl", ".cache/a.jsonl", "a/.b/c.csv", "dataset_info.json", "x/state.json",
     "cache-1f2e.arrow", "data/script.py"],
)  # fmt: skip
def test_what_lies_beside_data_is_none(name: str) -> None:
    assert not is_data(name) and is_data("data/train.jsonl")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"), ("data/train-00000-of-00001.parquet", "train"), ("training_set.csv.gz", "train"),
        ("chat-train-2024.jsonl", "train"), ("train/1.json", "train"), ("test/part-train.csv", "train"),
        ("val.jsonl", "validation"), ("dev/a.jsonl", "validation"), ("validation-00001-of-00002.parquet", "validation"),
        ("test.json", "test"), ("eval.jsonl", "test"), ("en/test/x.csv", "test"),
        ("data/train_sft-00000-of-00003.parquet", "train_sft"), ("train_sft.parquet", "train"),
        ("a.jsonl", None), ("trainer.jsonl", None), ("contest.csv", None), ("latest-00000-of-00001.parquet", "latest"),
    ],
)  # fmt: skip
def test_the_split_stands_in_the_name_or_the_folder(name: str, split: str | None) -> None:
    assert split_of(name) == split
