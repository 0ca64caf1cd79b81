"""What a store says it has, held against what was sent: damage on the way in is noticed before anyone relies on it.

A store that checks what it gets, as AWS does, refuses a damaged body. One that only keeps the checksum it was told is
found out by the MD5 in its ETag. Parts without CRC64NVME leave only the size to compare.
"""

from collections.abc import Callable

from job.storage.checksum import Crc
from job.storage.store import Entry

TRIES = 3
MD5_UP_TO_BYTES = 64 << 20  # MD5 runs at a twentieth of the CRC's speed
BLAME = "the network, a proxy or the store damages what it carries"


def misfit(stored: Entry, stored_md5: str | None, sent: Crc, md5_of_sent: Callable[[], str]) -> str | None:
    """How the object differs from what was sent; None where it is the same as far as the store can tell."""
    if stored.size != sent.size:
        return f"{stored.size} bytes after writing {sent.size}"
    if stored.crc64nvme not in (None, sent.base64()):
        return f"CRC64NVME {stored.crc64nvme} after writing {sent.base64()}"
    if stored_md5 is not None and sent.size <= MD5_UP_TO_BYTES and stored_md5 != (md5 := md5_of_sent()):
        return f"MD5 {stored_md5} after writing {md5}"
    return None
