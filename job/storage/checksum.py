"""CRC64NVME, the checksum S3 keeps of whole objects: parts are summed apart, in any order, and combined."""

import base64
import hashlib
import os
import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

CHUNK_BYTES = 1 << 20


@dataclass
class Crc:
    """A running checksum; two are equal when sum and length are."""

    value: int = 0
    size: int = 0  # bytes summed so far

    def update(self, data: bytes | memoryview) -> None:
        from awscrt.checksums import crc64nvme

        self.value = crc64nvme(data, self.value)
        self.size += len(data)

    def base64(self) -> str:
        return base64.b64encode(self.value.to_bytes(8, "big")).decode()


def combined(parts: list[Crc]) -> Crc:
    """The checksum of the parts' contents one after the other."""
    from awscrt.checksums import combine_crc64nvme

    def join(left: Crc, right: Crc) -> Crc:
        return Crc(combine_crc64nvme(left.value, right.value, right.size), left.size + right.size)

    return reduce(join, parts, Crc())


def crc_of(data: bytes) -> Crc:
    crc = Crc()
    crc.update(data)
    return crc


def crc_of_file(path: Path) -> Crc:
    with path.open("rb", buffering=0) as file:
        return crc_of_range(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def crc_of_range(descriptor: int, first: int, length: int) -> Crc:
    """The checksum of `length` bytes from `first`, or of as many as there are."""
    crc = Crc()
    while crc.size < length:
        data = os.pread(descriptor, min(CHUNK_BYTES, length - crc.size), first + crc.size)
        if not data:
            break
        crc.update(data)
    return crc


def md5_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5_in(etag: str, encryption: str | None) -> str | None:
    """The MD5 of an S3 object that was stored in one piece and not under a KMS key: then its ETag is just that."""
    found = re.fullmatch(r'"?([0-9a-f]{32})"?', etag)
    return found[1] if found and (encryption or "AES256") == "AES256" else None
