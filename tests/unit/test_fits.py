"""Rows that do not fit the model are refused before it is loaded, with what to change."""

import json
from pathlib import Path

import pytest

from job.errors import ConfigError, DataError
from job.fits import check_fit


def config(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(fields))
    return path


def test_a_token_without_an_embedding_names_the_tokenizer(tmp_path: Path) -> None:
    described = config(tmp_path, vocab_size=100, max_position_embeddings=64)
    check_fit({"largest_id": 99, "longest_row": 64}, described, "base", "other")
    with pytest.raises(DataError, match="token 100, but base has 100 embeddings: the tokenizer other does not fit"):
        check_fit({"largest_id": 100, "longest_row": 64}, described, "base", "other")


def test_a_row_longer_than_the_positions_of_a_nested_text_config_is_refused(tmp_path: Path) -> None:
    described = config(tmp_path, text_config={"vocab_size": 100, "max_position_embeddings": 64})
    with pytest.raises(ConfigError, match=r"65 tokens, but base has 64 positions: set data.max_length to at most 64"):
        check_fit({"largest_id": 5, "longest_row": 65}, described, "base", "base")
