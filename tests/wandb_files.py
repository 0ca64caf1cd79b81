"""What a W&B run that was kept offline holds, read from its file."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def history(path: Path) -> Iterator[dict[str, Any]]:
    """The logged rows of a `.wandb` file."""
    from wandb.proto import wandb_internal_pb2

    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}


def _records(log: bytes) -> Iterator[bytes]:
    """LevelDB's log format after a file header of 7 bytes: blocks of 32 KiB; crc, length, kind before each fragment."""
    at, record = 7, b""
    while at < len(log):
        if 32768 - at % 32768 < 7:  # no room for a fragment's header: padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", log, at + 4)
        record += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last fragment
            yield record
            record = b""
