"""What prepared rows depend on, as one name: the same input and options give the same rows, and so the same name."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job.training.dataset import FORMAT_VERSION

TOKENIZER_FILES = (
    "config.json",  # its model_type chooses the tokenizer's class
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.json",
)


def fingerprint(
    train: Sequence[Mapping[str, Any]],
    evaluation: Sequence[Mapping[str, Any]],
    tokenizer_folder: Path,
    chat_template: str | None,
    options: Mapping[str, Any],
) -> str:
    """64 hex digits. Of a source its content and options count, not its name or place; their order counts."""
    known = {
        "version": FORMAT_VERSION,
        "train": [_identity(source) for source in train],
        "eval": [_identity(source) for source in evaluation],
        "tokenizer": {str(path.relative_to(tokenizer_folder)): digest(path) for path in _files(tokenizer_folder)},
        "chat_template": chat_template,
        "options": dict(options),
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _identity(source: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in source.items() if name not in ("uri", "path") and value is not None}
    return kept if "sha256" in kept else {**kept, "sha256": digest(Path(source["path"]))}


def _files(folder: Path) -> list[Path]:
    found = {folder / name for name in TOKENIZER_FILES if (folder / name).is_file()}
    found |= {path for pattern in ("*.jinja", "*/*.jinja", "*.py") for path in folder.glob(pattern)}
    return sorted(found)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
