"""What a model's files say of themselves: config, and every tensor's name, shape and type; no weight is read.

Of a safetensors file only its head is asked for: 8 bytes, little-endian, with the length of the JSON that follows.
"""

import json
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DataError
from job.storage.disk import disk_errors
from job.storage.model_files import ADAPTER, CONFIG, HEADER_LIMIT_BYTES, WEIGHTS, check_config, read_json, shards
from job.storage.parallel import in_parallel
from job.storage.puller import Pull
from job.storage.sources import Folder, Source
from job.storage.store import NotFound

FIRST_BYTES = 1 << 17  # most headers are no longer: one request a file
PARALLEL = 8

TensorHead = tuple[str, tuple[int, ...], str]  # name, shape, type as safetensors spells it


@dataclass(frozen=True)
class Described:
    """A base model as its files describe it."""

    source: str  # its revision pinned
    config: dict[str, Any]
    tensors: list[TensorHead]  # none where its weights bring no headers (.bin)
    weight_bytes: int  # of all its files


def describe(source: str, pull: Pull) -> Described:
    """Raises: DataError where it is no model; StorageError; Stopped."""
    at = pull.source(source)
    there = pull.ask(at, (CONFIG, ADAPTER, *WEIGHTS))
    if CONFIG not in there:
        adapter = " (an adapter is there: name its base)" if ADAPTER in there else ""
        raise at.missing(f"{source} is no model: {CONFIG} is missing{adapter}")
    with tempfile.TemporaryDirectory() as scratch:
        config = _document(at, CONFIG, Path(scratch), pull)
        weights = next((name for name in WEIGHTS if name in there), None)
        if weights is None:
            raise at.missing(f"{source} has no weights: none of {', '.join(WEIGHTS)} is there")
        if not weights.endswith(".json"):
            entries = {weights: there[weights]}
        else:
            _document(at, weights, Path(scratch), pull)
            names = shards(Path(scratch) / weights, at.file_uri(weights))
            entries = pull.ask(at, names)
            if lost := [name for name in names if name not in entries]:
                raise at.missing(f"{at.file_uri(lost[0])} is missing, though {weights} names it")
    if "safetensors" not in weights:
        return Described(at.uri, config, [], sum(entry.size for entry in entries.values()))
    heads = in_parallel(lambda name, _: header(at, name), list(entries), PARALLEL, pull.check)
    return Described(
        at.uri, config, [head for heads_ in heads for head in heads_], sum(entry.size for entry in entries.values())
    )


def folder_heads(folder: Path) -> list[TensorHead]:
    """Of the model's files on this machine, those that its index names where it has one. Raises: DataError."""
    at = Folder(folder)
    index = folder / "model.safetensors.index.json"
    names = shards(index, str(index)) if index.is_file() else ["model.safetensors"]
    return [head for name in names for head in header(at, name)]


def header(at: Source, name: str) -> list[TensorHead]:
    """Raises: DataError where it is damaged or not there, StorageError."""
    uri = at.file_uri(name)
    first = read(at, name, 0, FIRST_BYTES)
    length = struct.unpack("<Q", first[:8])[0] if len(first) >= 8 else 0
    if not 0 < length <= HEADER_LIMIT_BYTES:
        raise DataError(f"{uri} is not a safetensors file, or is truncated")
    body = first[8 : 8 + length]
    if len(body) < length:
        body += read(at, name, 8 + len(body), length - len(body))
    try:
        tensors = json.loads(body)
        return [
            (tensor, tuple(int(side) for side in told["shape"]), str(told["dtype"]))
            for tensor, told in tensors.items()
            if tensor != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{uri} is damaged: its safetensors header cannot be read") from error


def read(at: Source, name: str, start: int, size: int) -> bytes:
    """At most `size` bytes of a source's file from `start` on. Raises: DataError, StorageError."""
    if not isinstance(at, Folder):
        return at.store.read(at.prefix + name, start, size)
    path = at.path / name
    with disk_errors(path):
        try:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except FileNotFoundError:
            raise NotFound(f"{path} does not exist") from None


def _document(at: Source, name: str, scratch: Path, pull: Pull) -> dict[str, Any]:
    """A JSON file, checked as a pull would check it."""
    path = scratch / name
    path.write_bytes(pull.watch(lambda: read(at, name, 0, HEADER_LIMIT_BYTES)))
    if name == CONFIG:
        check_config(path, at.file_uri(name))
    return read_json(path, at.file_uri(name))
