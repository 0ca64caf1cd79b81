"""What a finished run is, bit by bit: each tensor of its result, its evaluations, and whether all of it verifies."""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DataError
from job.settled import read_result
from job.storage.checkpoints import download_files
from job.storage.stock import take_stock
from job.storage.store import ObjectStore
from job.storage.verification import Verification

WEIGHTS = ".safetensors"


@dataclass(frozen=True)
class Outcome:
    """`tensors`: dtype, shape and SHA-256 of the bytes, by name. `damage`: what does not verify, in words."""

    tensors: dict[str, str]
    evaluations: list[dict[str, Any]]
    commits: int
    damage: tuple[str, ...] = ()


def outcome_of(store: ObjectStore, scratch: Path) -> Outcome | None:
    """None where no result is committed. Raises: StorageError, HardwareError."""
    try:
        result = read_result(store)
        if result is None:
            return None
        stock = take_stock(store)
        checked = list(Verification(store, stock, scratch / "checked", lambda count: None).run())
        damage = tuple(f"{one.key}: {problem}" for one in checked for problem in one.problems)
        tensors: dict[str, str] = {}
        if not damage:
            files = [file for file in result.files if file.name.endswith(WEIGHTS)]
            download_files(store, result.folder, files, scratch / "result")
            for file in files:
                tensors |= tensor_digests(scratch / "result" / file.name)
        return Outcome(tensors, result.evaluations, len(stock.commits), damage)
    except DataError as error:
        return Outcome({}, [], 0, (str(error),))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def tensor_digests(path: Path) -> dict[str, str]:
    """Of a safetensors file: eight bytes with the length of a JSON header, the header, the tensors' bytes."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    found = {}
    for name, tensor in header.items():
        if name != "__metadata__":
            first, last = tensor["data_offsets"]
            digest = hashlib.sha256(data[begin + first : begin + last]).hexdigest()
            found[name] = f"{tensor['dtype']} {tensor['shape']} {digest}"
    return found


def differences(found: Outcome, reference: Outcome) -> list[str]:
    """Where a run is not the one that was left alone, in words."""
    said = [f"does not verify: {what}" for what in found.damage]
    if not said and found.tensors != reference.tensors:
        names = sorted(found.tensors.keys() | reference.tensors.keys())
        other = [name for name in names if found.tensors.get(name) != reference.tensors.get(name)]
        said.append(f"{len(other)} of {len(names)} final tensors are not bit-identical, the first is {other[0]}")
    if not found.damage and found.evaluations != reference.evaluations:
        said.append("its evaluations are not those of the run that was left alone")
    return said
