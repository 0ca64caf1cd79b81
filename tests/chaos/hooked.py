"""The store of a run folder, its operations seen by an observer; downloads come damaged where the plan says so."""

import re
from dataclasses import replace
from pathlib import Path

from job.storage.checksum import crc_of_file
from job.storage.store import Entry, ObjectStore, Progress
from tests.chaos.observing import Observer
from tests.hooked_store import HookedStore


class _BadMemory(HookedStore):
    """Every download whose key matches has one bit flipped, each time."""

    flip: str
    unnoticed: bool

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        entry = super().download(key, path, progress, expect)
        if re.search(self.flip, key):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            if self.unnoticed:
                return replace(entry, crc64nvme=crc_of_file(path).base64())
        return entry


def hooked(inner: ObjectStore, seen: Observer) -> ObjectStore:
    def before(operation: str, key: str) -> None:
        seen.saw(f"before {operation} {key}")

    def after(operation: str, key: str) -> None:
        seen.saw(f"after {operation} {key}")

    if not seen.plan.flip:
        return HookedStore(inner, before, after)
    store = _BadMemory(inner, before, after)
    store.flip, store.unnoticed = seen.plan.flip, seen.plan.flip_unnoticed
    return store
