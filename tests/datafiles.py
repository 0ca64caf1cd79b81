"""The same rows in every type of file that data come in."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

Rows = Sequence[dict[str, Any]]


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def dump(value: Any, **options: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, **options).encode()


def delimited(rows: Rows, delimiter: str) -> bytes:
    """Lists and objects stand in a cell as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, delimiter=delimiter)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: dump(value).decode() if isinstance(value, list | dict) else value
                         for name, value in row.items()})  # fmt: skip
    return text.getvalue().encode()


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True)) if data else b""


def parquet(rows: Rows, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, **options)
    return sink.getvalue()


def arrow(rows: Rows, stream: bool = False, **options: Any) -> bytes:
    table, sink = pa.Table.from_pylist(list(rows)), io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, **options)
    return sink.getvalue()


def feather(rows: Rows) -> bytes:
    sink = io.BytesIO()
    pa.feather.write_feather(pa.Table.from_pylist(list(rows)), sink, compression="zstd")
    return sink.getvalue()


Writer = Callable[[Rows], bytes]
TYPES: dict[str, Writer] = {
    "a.jsonl": jsonl,
    "b.ndjson": jsonl,
    "bom.jsonl": lambda rows: b"\xef\xbb\xbf" + jsonl(rows).replace(b"\n", b"\r\n"),
    "list.json": dump,
    "pretty.json": lambda rows: dump(rows, indent=2),
    "data.json": lambda rows: dump({"version": "1", "data": rows}),
    "splits.json": lambda rows: dump({"test": [{"no": 1}], "train": rows}, indent=1),
    "lines.json": jsonl,
    "pretty-lines.json": lambda rows: b"\n".join(dump(row, indent=1) for row in rows),
    "c.csv": lambda rows: delimited(rows, ","),
    "bom.csv": lambda rows: b"\xef\xbb\xbf" + delimited(rows, ","),
    "c.tsv": lambda rows: delimited(rows, "\t"),
    "p.parquet": parquet,
    "f.arrow": arrow,
    "s.arrow": lambda rows: arrow(rows, stream=True),
    "f.feather": feather,
    "a.jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    "a.jsonl.zst": lambda rows: zstd(jsonl(rows)),
    "l.json.gz": lambda rows: gzip.compress(dump(rows)),
    "l.json.zst": lambda rows: zstd(dump(rows)),
    "c.csv.gz": lambda rows: gzip.compress(delimited(rows, ",")),
    "c.csv.zst": lambda rows: zstd(delimited(rows, ",")),
    "c.tsv.gz": lambda rows: gzip.compress(delimited(rows, "\t")),
    "no-ending": jsonl,
    "no-ending-p": parquet,
}  # fmt: skip


def write(folder: Path, name: str, rows: Rows) -> Path:
    path = folder / name
    path.write_bytes(TYPES[name](rows))
    return path
