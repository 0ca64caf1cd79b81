"""Do the prepared rows fit the model? Found out from its config.json, before a rank runs out of embeddings."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job.errors import ConfigError, DataError


def check_fit(summary: Mapping[str, Any], config_json: Path, base: str, tokenizer: str, added: int = 0) -> None:
    """`summary`: what preparation found; `config_json`: the base's; `added`: tokens that are to get embeddings.

    Raises: DataError when a token has no embedding (the tokenizer is another model's), ConfigError when a row is longer
    than the positions the model has.
    """
    described = json.loads(config_json.read_text(encoding="utf-8"))
    described = {**described, **(described.get("text_config") or {})}
    vocabulary, positions = described.get("vocab_size"), described.get("max_position_embeddings")
    fits = vocabulary is None or summary["largest_id"] < vocabulary
    if not fits and not (added and summary["vocab_size"] - added <= vocabulary):
        raise DataError(
            f"the rows hold token {summary['largest_id']}, but {base} has {vocabulary} embeddings: "
            f"the tokenizer {tokenizer} does not fit this base; set model.tokenizer"
        )
    if positions is not None and summary["longest_row"] > positions:
        raise ConfigError(
            f"the longest row has {summary['longest_row']} tokens, but {base} has {positions} positions: "
            f"set data.max_length to at most {positions}"
        )
