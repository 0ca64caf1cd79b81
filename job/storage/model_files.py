"""Which files make a model and a tokenizer, read from its own config and index: no listing is needed."""

import json
import struct
from pathlib import Path, PurePosixPath
from typing import Any

from job.errors import DataError

CONFIG = "config.json"
GENERATION = "generation_config.json"
ADAPTER = "adapter_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
TOKENIZER = (
    *VOCABULARIES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    CONFIG,
)
HEADER_LIMIT_BYTES = 100_000_000  # the safetensors format's own bound


def read_json(path: Path, uri: str) -> dict[str, Any]:
    """Raises DataError where the file is no JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{uri} is not JSON: {error}") from error
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error.strerror}") from error
    if not isinstance(found, dict):
        raise DataError(f"{uri} is not a JSON object")
    return found


def check_config(path: Path, uri: str) -> None:
    """Raises DataError unless it is a transformers config."""
    if not isinstance(read_json(path, uri).get("model_type"), str):
        raise DataError(f"{uri} names no model_type: this is not a transformers model")


def shards(index: Path, uri: str) -> list[str]:
    """The files an index names, sorted. Raises DataError, also for a name that leads out of the folder."""
    weight_map = read_json(index, uri).get("weight_map")
    names = set(weight_map.values()) if isinstance(weight_map, dict) and weight_map else set()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"{uri} has no weight_map that names files")
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise DataError(f"{uri} names {name!r}, which is outside the model's folder")
    return sorted(names)


def check_safetensors(path: Path, uri: str) -> None:
    """The header must parse and its tensors must end where the file ends. Raises DataError.

    Format: 8 bytes little-endian header length, JSON {name: {dtype, shape, data_offsets: [begin, end]}}, data.
    """
    try:
        _check_safetensors(path, uri)
    except OSError as error:  # read in place, it may be another user's
        raise DataError(f"{uri} cannot be read: {error.strerror}") from error


def _check_safetensors(path: Path, uri: str) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if length == 0 or length > HEADER_LIMIT_BYTES:
            raise DataError(f"{uri} is not a safetensors file, or is truncated ({size} bytes)")
        if 8 + length > size:
            raise DataError(f"{uri} is truncated: its header alone is {8 + length} bytes, the file is {size}")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{uri} is damaged: its safetensors header cannot be read") from error
    if size < whole:
        raise DataError(f"{uri} is truncated: it should be {whole} bytes and is {size}")
    if size > whole:
        raise DataError(f"{uri} is damaged: it should be {whole} bytes and is {size}")


def module_names(folder: Path) -> set[str]:
    """The modules whose weight is a matrix, by their dotted names in the folder's safetensors files."""
    names = set()
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(min(struct.unpack("<Q", file.read(8))[0], HEADER_LIMIT_BYTES)))
            matrices = [name for name, tensor in header.items() if len(tensor.get("shape", ())) == 2]
        except (OSError, ValueError, RecursionError, struct.error, AttributeError, TypeError):
            continue  # not one of the model's, which were checked: a stray file beside them
        names |= {name.removesuffix(".weight") for name in matrices if name.endswith(".weight")}
    return names
