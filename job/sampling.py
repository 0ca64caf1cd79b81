"""How many rows and tokens the data will make, from their sizes and a sample of their bytes: nothing is pulled whole.

Tokens are counted with the run's own tokenizer where it is a tokenizer.json; else taken as so many bytes each. All of
it is an estimate, and says so.
"""

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.config import Columns, DataSource, RunConfig
from job.filetypes import DEFAULT_SPLIT, LINES, type_of
from job.storage.data_files import choose, local_files, remote_files, split_pattern
from job.storage.headers import read
from job.storage.puller import Pull
from job.storage.sources import Folder, Source
from job.storage.store import is_local

SAMPLED_FILES, SAMPLE_BYTES, PLACES = 8, 1 << 18, 4  # of each file, so many bytes in so many places
BYTES_PER_TOKEN, BYTES_PER_TOKEN_CJK = 4.0, 2.5
GROWS = 3.5  # times as many bytes as a compressed file or table has
TURN_TOKENS = 4  # that a template writes around a message or a text
NO_TEXT = {"role", "from", "id", "name", "source", "split", "format", "weight", "loss", "category", "lang", "language"}

Counter = Callable[[Sequence[str]], list[int]]  # tokens of each text


@dataclass(frozen=True)
class Amount:
    """Of one epoch."""

    rows: int
    tokens: int
    measured: bool  # counted in prepared rows
    how: str
    pulled_bytes: int  # of the files that a node has to pull


@dataclass(frozen=True)
class _File:
    at: Source
    name: str
    size: int


def amount(config: RunConfig, pull: Pull, counter: Counter | None) -> Amount:
    """Raises: DataError where there is no data, StorageError."""
    rows = tokens = 0.0
    sampled = pulled = 0
    for source in config.data.train:
        files = _files(source, pull)
        pulled += sum(file.size for file in files if not isinstance(file.at, Folder))
        found, read_bytes = _source(config, source, files, counter, pull)
        rows += found[0] * (source.weight or 1)
        tokens += found[1] * (source.weight or 1)
        sampled += read_bytes
    held_out = config.data.eval if isinstance(config.data.eval, float) else 0.0
    by = "the run's tokenizer" if counter else f"{BYTES_PER_TOKEN:g} bytes a token ({BYTES_PER_TOKEN_CJK:g} in CJK)"
    return Amount(
        max(1, round(rows * (1 - held_out))),
        max(1, round(tokens * (1 - held_out))),
        False,
        f"estimated from {sampled / 1e3:,.0f} kB of the data, by {by}",
        pulled,
    )


def counting(tokenizer_json: Path) -> Counter | None:
    """Tokens by a tokenizer.json; None where it cannot be read."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception:  # the library raises nothing narrower
        return None
    return lambda texts: [len(one.ids) for one in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def by_bytes(texts: Sequence[str]) -> list[int]:
    """About so many tokens. Chinese, Japanese and Korean take three bytes a character in UTF-8."""
    found = []
    for text in texts:
        wide = sum("\u2e80" <= char <= "\ud7ff" or char >= "\uf900" for char in text)
        size = len(text.encode("utf-8", "replace"))
        found.append(round(3 * wide / BYTES_PER_TOKEN_CJK + max(size - 3 * wide, 0) / BYTES_PER_TOKEN))
    return found


def _files(source: DataSource, pull: Pull) -> list[_File]:
    """As a pull would choose them."""
    wanted = (DEFAULT_SPLIT,)
    if not is_local(source.uri):
        folder, pattern = split_pattern(source.uri)
        at = pull.remote(folder)
        if not isinstance(at, Folder):
            remote = at
            entries = dict(pull.watch(lambda: remote_files(source.uri, remote, pattern)))
            names = choose(source.uri, list(entries), source.split, wanted, single=pattern in entries)
            return [_File(at, name, entries[name].size) for name, _ in names]
        path = str(at.path / pattern)
    else:
        path = source.uri
    root, listed = local_files(source.uri, path)
    names = choose(source.uri, listed, source.split, wanted, single=Path(path).is_file())
    return [_File(Folder(root), name, (root / name).stat().st_size) for name, _ in names]


def _source(
    config: RunConfig, source: DataSource, files: list[_File], counter: Counter | None, pull: Pull
) -> tuple[tuple[float, float], int]:
    """((rows, tokens), bytes read). What a sample holds stands for the bytes that it took."""
    apart = max(1, len(files) // SAMPLED_FILES)
    covered = rows = tokens = 0.0
    sampled = 0
    for file, at in ((one, at) for one in files[::apart][:SAMPLED_FILES] for at in _places(one)):
        wanted = SAMPLE_BYTES // len(_places(file))
        part = pull.watch(lambda file=file, at=at, wanted=wanted: read(file.at, file.name, at, wanted))  # type: ignore[misc]
        sampled += len(part)
        used, records = _records(file.name, part[part.find(b"\n") + 1 :] if at else part, len(part) >= file.size)
        if not records:
            continue
        names = _columns(source.columns or config.data.columns)
        lengths = _lengths([list(_texts(_only(record, names), None)) for record in records], counter or by_bytes)
        kept = _kept(config, lengths)
        covered, rows, tokens = covered + used, rows + len(kept), tokens + sum(kept)
    size = float(sum(file.size for file in files))
    if covered:
        return (rows * size / covered, tokens * size / covered), sampled
    packed = not all(file.name.lower().endswith(tuple(LINES)) for file in files)
    guessed = size * (GROWS if packed else 1) / BYTES_PER_TOKEN
    return (guessed / (config.data.max_length / 2), guessed), sampled


def _places(file: _File) -> list[int]:
    """Where a file is read: a large one of lines in several places, as many are sorted."""
    if file.size <= SAMPLE_BYTES or not file.name.lower().endswith((".jsonl", ".ndjson")):
        return [0]
    part = file.size // PLACES
    return [part * number + (part - SAMPLE_BYTES // PLACES) // 2 for number in range(PLACES)]


def _columns(columns: Columns | None) -> set[str] | None:
    """Those that prompt and completion are made of; None: all."""
    if columns is None:
        return None
    templates = [columns.prompt, columns.completion]
    return {name for text in templates for name in (re.findall(r"{(\w+)", text) if "{" in text else [text])}


def _only(record: Any, names: set[str] | None) -> Any:
    if names is None or not isinstance(record, dict):
        return record
    return {f"column {name}": value for name, value in record.items() if name in names}


def _lengths(rows: list[list[str]], counter: Counter) -> list[int]:
    flat = counter([text for row in rows for text in row])
    lengths, at = [], 0
    for row in rows:
        lengths.append(sum(flat[at : at + len(row)]) + TURN_TOKENS * len(row))
        at += len(row)
    return lengths


def _kept(config: RunConfig, lengths: list[int]) -> list[int]:
    limit, overlong = config.data.max_length, config.data.overlong
    if overlong == "truncate":
        return [min(length, limit) for length in lengths]
    if overlong == "split":
        return [min(limit, length - start) for length in lengths for start in range(0, max(length, 1), limit)]
    return [length for length in lengths if length <= limit]


def _records(name: str, part: bytes, whole: bool) -> tuple[float, list[Any]]:
    """(bytes of the file that they took, the whole records in them); none of what is no text."""
    kind, used = type_of(name), float(len(part))
    if name.lower().endswith(".gz"):
        text = zlib.decompressobj(31).decompress(part)
    elif name.lower().endswith((".zst", ".zstd")) or kind in ("parquet", "arrow", None):
        return used, []
    else:
        text = part
    last = len(text) if whole else text.rfind(b"\n") + 1
    used *= last / max(len(text), 1)
    lines = text[:last].decode("utf-8", "replace")
    if kind in ("csv", "tsv"):
        return used, list(csv.DictReader(io.StringIO(lines), delimiter="\t" if kind == "tsv" else ","))
    if kind == "json" and lines.lstrip().startswith("["):
        return float(len(part)), list(_listed(text.decode("utf-8", "replace")))
    return used, [record for line in lines.splitlines() if (record := _parsed(line)) is not None]


def _listed(text: str) -> Iterator[Any]:
    """The whole objects of a JSON list of which the end may be missing."""
    decoder, at = json.JSONDecoder(), text.find("[") + 1
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            record, at = decoder.raw_decode(text, at)
        except ValueError:
            return
        yield record


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _texts(value: Any, key: str | None) -> Iterator[str]:
    """Everything in a record that may be learned from."""
    if isinstance(value, str):
        if key not in NO_TEXT:
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, key)
