"""A folder, a glob or a prefix means its data files, of one split; what is left out is said, and nothing is guessed."""

from pathlib import Path

import pytest

from job.errors import DataError
from job.storage.data_files import choose, local_files

HUB = ["README.md.jsonl", "data/test-00000-of-00001.parquet", "data/train-00000-of-00002.parquet",
       "data/train-00001-of-00002.parquet"]  # fmt: skip
TRAIN = ("train",)


def chosen(names: list[str], split: str | None = None, prefer: tuple[str, ...] = TRAIN, single: bool = False):  # type: ignore[no-untyped-def]
    said: list[str] = []
    found = choose("s3://d/", names, split, prefer, single, said.append)
    return [name if inside is None else (name, inside) for name, inside in found], said


def test_files_without_splits_are_all_meant() -> None:
    assert chosen(["a.jsonl", "b.csv"]) == (["a.jsonl", "b.csv"], [])
    assert chosen(["train-1.jsonl", "train-2.jsonl"]) == (["train-1.jsonl", "train-2.jsonl"], [])
    assert chosen(["test.jsonl"]) == (["test.jsonl"], [])  # nothing else could be meant


def test_of_several_splits_train_is_taken_and_said() -> None:
    found, said = chosen(HUB[1:])
    assert found == HUB[2:]
    assert said == ["s3://d/ holds the splits test, train: taking train, 2 of 3 files"]


def test_files_that_name_no_split_are_trained_on_beside_files_of_test() -> None:
    found, said = chosen(["a.jsonl", "b.jsonl", "test.jsonl"])
    assert found == ["a.jsonl", "b.jsonl"] and "taking train, 2 of 3 files" in said[0]


def test_evaluation_takes_validation_before_test() -> None:
    prefer = ("validation", "test")
    assert chosen(["dev.csv", "test.csv", "train.csv"], prefer=prefer)[0] == ["dev.csv"]
    assert chosen(["test.csv", "train.csv"], prefer=prefer)[0] == ["test.csv"]
    assert chosen(["held.csv"], prefer=prefer)[0] == ["held.csv"]
    with pytest.raises(DataError, match="holds only the split train, not validation or test"):
        chosen(["train.csv"], prefer=prefer)


def test_a_split_that_is_asked_for_is_found_under_its_usual_names() -> None:
    assert chosen(["train.csv", "val.csv"], "validation") == (["val.csv"], [])
    assert chosen(["train.csv", "validation.csv"], "dev")[0] == ["validation.csv"]
    sharded = ["data/train_gen-00000-of-00001.parquet", "data/train_sft-00000-of-00001.parquet"]
    assert chosen(sharded, "train_sft")[0] == sharded[1:]


@pytest.mark.parametrize(
    ("names", "split", "reason"),
    [
        (["train.csv", "test.csv"], "validation", r"there is no split validation \(there are test, train\)"),
        (["a.csv", "b.csv"], "train", r"there is no split train \(no file or folder names one\)"),
        (["train_gen-00000-of-00001.parquet", "train_sft-00000-of-00001.parquet"], None,
         "holds several splits and no train: name one of train_gen, train_sft as split"),
    ],
)  # fmt: skip
def test_a_split_that_is_not_there_lists_those_that_are(names: list[str], split: str | None, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        chosen(names, split)


def test_one_file_needs_no_split_and_a_json_file_may_hold_it() -> None:
    assert chosen(["test.csv"], single=True)[0] == ["test.csv"]
    assert chosen(["all.json"], "test", single=True)[0] == [("all.json", "test")]
    assert chosen(["a.json.gz", "b.json"], "test")[0] == [("a.json.gz", "test"), ("b.json", "test")]
    with pytest.raises(DataError, match="there is no split test"):
        chosen(["all.csv"], "test", single=True)


def test_a_folder_means_the_data_files_below_it(tmp_path: Path) -> None:
    names = ["README.md", "dataset_info.json", ".git/a.jsonl", "b.jsonl.gz", "deep/er/a.parquet", "x.csv", ".b.csv"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert local_files("d", str(tmp_path)) == (tmp_path, ["b.jsonl.gz", "deep/er/a.parquet", "x.csv"])
    assert local_files("d", f"{tmp_path}/*") == (tmp_path, ["b.jsonl.gz", "x.csv"])
    assert local_files("d", f"{tmp_path}/*/er/*.parquet") == (tmp_path, ["deep/er/a.parquet"])
    with pytest.raises(DataError, match=r"d: no data file matches \(known are jsonl, json, csv, tsv"):
        local_files("d", f"{tmp_path}/*.md")
    assert local_files("d", f"{tmp_path}/README.md") == (tmp_path, ["README.md"])  # who names it means it


def test_a_folder_that_cannot_be_listed_is_no_smaller_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "deep").mkdir()
    listing = __import__("os").scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match="d cannot be read: Permission denied"):
        local_files("d", str(tmp_path))
