"""What a file's name says: which type of data it holds, how it is compressed, and which split it belongs to."""

import re
from pathlib import PurePosixPath

LINES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"}
TABLES = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
COMPRESSIONS = (".gz", ".zst", ".zstd")  # of lines only; tables compress themselves
SPOKEN_TYPES = "jsonl, json, csv, tsv (also .gz or .zst), parquet or arrow"

# What lies beside data and describes them.
_NO_DATA = frozenset(
    ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json", "metadata.json")
)
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
DEFAULT_SPLIT = "train"


def type_of(name: str) -> str | None:
    """jsonl, json, csv, tsv, parquet or arrow, by the ending of a file's name; None for any other."""
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSIONS:
        return LINES.get(path.with_suffix("").suffix)
    return LINES.get(path.suffix) or TABLES.get(path.suffix)


def is_data(name: str) -> bool:
    """Whether a file found in a folder is taken for data; `name` is its path below that folder."""
    *_, last = parts = PurePosixPath(name).parts
    hidden = any(part.startswith(".") for part in parts)
    return not hidden and last not in _NO_DATA and not last.startswith("cache-") and type_of(last) is not None


def split_of(name: str) -> str | None:
    """The split that a path names: by its file's name, else by the folders above it, the nearest first.

    `train-00000-of-00002.parquet`, `data/train.jsonl`, `chat_train.csv` and `train/1.json` are all of `train`; a
    sharded file's split is called as it is written: `train_sft-00000-of-00001.parquet` is of `train_sft`.
    """
    *folders, last = PurePosixPath(name).parts
    stem = PurePosixPath(last)
    while stem.suffix.lower() in (*COMPRESSIONS, *LINES, *TABLES):
        stem = stem.with_suffix("")
    if sharded := _SHARD.fullmatch(stem.name):
        return canonical_split(sharded["split"])
    for part in (stem.name, *reversed(folders)):
        for word in re.split(r"[^a-z0-9]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return None


def canonical_split(name: str) -> str:
    """`val` and `dev` are `validation`; a name that is no usual one stays as it is."""
    return _SPLITS.get(name.lower(), name)
