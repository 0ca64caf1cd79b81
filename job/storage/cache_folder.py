"""Where a cache keeps what: blobs by content, small notes by uri. Reading takes no lock: what is there is whole."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.storage.blobs import Blob
from job.storage.store import Entry


@dataclass(frozen=True)
class Answer:
    """What a store said of a uri when it was asked. `entry` None: there is no such object."""

    entry: Entry | None


@dataclass(frozen=True)
class CacheFolder:
    """The folder of a cache, this machine's own or one on a filesystem that many share."""

    path: Path

    def blob(self, uri: str, entry: Entry) -> Blob:
        return Blob(self.path / "blobs" / blob_name(uri, entry))

    def index(self, uri: str) -> Path:
        return self.path / "index" / f"{hashlib.sha256(uri.encode()).hexdigest()[:40]}.json"

    def noted(self, uri: str) -> dict[str, Any] | None:
        try:
            found = json.loads(self.index(uri).read_text(encoding="utf-8"))
        except (FileNotFoundError, PermissionError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def answer(self, uri: str) -> Answer | None:
        """None: it was never asked. The blob may have been evicted since."""
        fields = self.noted(uri)
        if fields is None:
            return None
        if "absent" in fields:
            return Answer(None)
        return Answer(Entry(uri, fields["size"], fields["etag"], fields["crc64nvme"]))

    def whole(self, uri: str, entry: Entry) -> Blob | None:
        blob = self.blob(uri, entry)
        return blob if blob.is_whole(entry.size) else None


def blob_name(uri: str, entry: Entry) -> str:
    """By content where the store tells a checksum, so that a copy elsewhere is the same blob; else by version."""
    known = entry.crc64nvme is not None
    identity = f"crc64nvme:{entry.crc64nvme}:{entry.size}" if known else f"{uri}\n{entry.etag}\n{entry.size}"
    return hashlib.sha256(identity.encode()).hexdigest()[:40]
