"""What goes up: with a checksum where the store takes one, and held against what the store then says it has."""

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from job.errors import JobError, StorageError
from job.storage.arrival import BLAME, TRIES, misfit
from job.storage.checksum import Crc, crc_of, crc_of_file, md5_of_file
from job.storage.disk import disk_errors
from job.storage.s3_errors import Damaged, answered, unknown_to_store
from job.storage.s3_objects import Objects, described
from job.storage.store import Counted, NotFound, Progress

PART_BYTES = 32 << 20
CONNECTIONS = 4

_log = logging.getLogger(__name__)


class Writer:
    """Raises StorageError where what arrives is damaged three times. A store without checksums is found out once."""

    def __init__(self, objects: Objects, encryption: Mapping[str, str]) -> None:
        self._objects, self._encryption = objects, dict(encryption)
        self._checksum = {"ChecksumAlgorithm": "CRC64NVME"}

    def put(self, key: str, data: bytes, **condition: str) -> None:
        sent, fault = crc_of(data), ""
        try:
            for _ in range(TRIES):
                # Once the store has taken it the key is ours, and what it holds is nobody's: no condition any more.
                answer = self._put(key, data, {} if fault else condition)
                stored, md5 = described(key, {**answer, "ContentLength": len(data)})
                fault = misfit(stored, md5, sent, lambda: hashlib.md5(data, usedforsecurity=False).hexdigest()) or ""
                if not fault:
                    return
            raise self._damaged(key, fault)
        except StorageError:
            if fault and condition:  # else it would be taken for another writer's
                with suppress(JobError), self._objects.errors("delete", key):
                    self._objects.client.delete_object(**self._objects.at(key))
            raise

    def upload(self, path: Path, key: str, progress: Progress | None) -> None:
        counted, fault = Counted(progress), ""
        for _ in range(TRIES):
            with disk_errors(path):
                sent = crc_of_file(path)
                acknowledged = self._send(path, key, counted)
                found = self._misfit(path, key, sent, acknowledged)
            if found is None:
                return
            fault = found
            counted.take_back()
        raise self._damaged(key, fault)

    def _misfit(self, path: Path, key: str, sent: Crc, acknowledged: bool) -> str | None:
        try:
            stored, md5 = self._objects.head(key)
        except NotFound:
            return f"nothing after writing {sent.size} bytes"
        if not acknowledged and stored.crc64nvme is None:
            return "perhaps an older object"
        return misfit(stored, md5, sent, lambda: md5_of_file(path))

    def _put(self, key: str, data: bytes, condition: Mapping[str, str]) -> dict[str, Any]:
        """One PUT; one more without checksum where the store does not know that."""

        def put(checksum: Mapping[str, str]) -> dict[str, Any]:
            with self._objects.errors("write", key):
                extra = {**condition, **checksum, **self._encryption}
                answer: dict[str, Any] = self._objects.client.put_object(**self._objects.at(key), Body=data, **extra)
                return answer

        try:
            return put(self._checksum)
        except StorageError as error:
            if not (self._checksum and unknown_to_store(error, self._objects.endpoint)):
                raise
        answer = put({})
        self._without_checksums()
        return answer

    def _send(self, path: Path, key: str, counted: Counted) -> bool:
        """Uploads the file; False where the end of a multipart upload may have been reached and its answer lost."""
        try:
            self._transfer(path, key, counted, self._checksum)
        except Damaged as error:
            if answered(error)[0] != "NoSuchUpload":
                raise
            return False
        except StorageError as error:
            if not (self._checksum and unknown_to_store(error, self._objects.endpoint)):
                raise
            counted.take_back()
            self._transfer(path, key, counted, {})
            self._without_checksums()
        return True

    def _transfer(self, path: Path, key: str, progress: Progress, checksum: Mapping[str, str]) -> None:
        from boto3.s3.transfer import TransferConfig

        # Classic, because the CRT client that "auto" may choose ignores the endpoint.
        config = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=CONNECTIONS,
            preferred_transfer_client="classic",
        )
        extra = {**checksum, **self._encryption}
        with self._objects.errors("write", key):
            where = self._objects.at(key)
            self._objects.client.upload_file(str(path), **where, ExtraArgs=extra, Callback=progress, Config=config)

    def _damaged(self, key: str, fault: str) -> StorageError:
        objects = self._objects
        return StorageError(f"write {objects.uri}/{key}: {objects.endpoint} has {fault}, three times: {BLAME}")

    def _without_checksums(self) -> None:
        self._checksum = {}
        _log.warning(
            "%s does not take CRC64NVME checksums; %s is written without them",
            self._objects.endpoint,
            self._objects.uri,
        )
