"""Does a body fit the checksums its headers give? What AWS answers where it does not."""

import base64
import hashlib
import re
from collections.abc import Mapping

from job.storage.checksum import crc_of


def refusal_of(headers: Mapping[str, str], body: bytes) -> str | None:
    """The code of the refusal. Framed bodies, whose checksum comes behind them, are taken as they are."""
    signed = headers.get("x-amz-content-sha256", "")
    if re.fullmatch("[0-9a-f]{64}", signed) and hashlib.sha256(body).hexdigest() != signed:
        return "XAmzContentSHA256Mismatch"
    if (given := headers.get("content-md5")) and base64.b64encode(hashlib.md5(body).digest()).decode() != given:
        return "BadDigest"
    if (given := headers.get("x-amz-checksum-crc64nvme")) and crc_of(body).base64() != given:
        return "BadDigest"
    return None
