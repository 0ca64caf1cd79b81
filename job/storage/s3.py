"""Any S3 endpoint as a store. boto3 is the control plane; `transfer` moves the bytes of downloads."""

import hashlib
import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from job.errors import ConfigError, StorageError
from job.storage import transfer
from job.storage.checksum import md5_in
from job.storage.disk import disk_errors
from job.storage.s3_client import encryption, make_clients
from job.storage.s3_errors import Damaged, missing_bucket, s3_errors, status_of
from job.storage.store import BucketOptions, Counted, Entry, NotFound, Progress, Transient, check_expected

ATTEMPTS = 3  # botocore's own, deaf to a stop; RetryingStore goes on from there
DELETE_AT_ONCE = 1000  # what DeleteObjects takes
MD5_UP_TO_BYTES = 64 << 20  # MD5 runs at a twentieth of the CRC's speed
UPLOAD_PART_BYTES = 32 << 20
# Answers of stores that do not know a checksum, a conditional write, or DeleteObjects without an MD5
_UNKNOWN_CODES = {
    "NotImplemented", "InvalidArgument", "InvalidRequest", "MissingContentLength", "XAmzContentSHA256Mismatch",
    "MissingContentMD5", "InvalidDigest", "MalformedXML", "MethodNotAllowed", "MalformedTrailerError",
}  # fmt: skip

_log = logging.getLogger(__name__)


class S3Store:
    """Objects below s3://bucket/prefix. What the endpoint turns out not to know is logged once and left out."""

    def __init__(self, uri: str, options: BucketOptions | None = None, give_up_after_seconds: float = 900) -> None:
        self.uri = uri.rstrip("/")
        self._bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self.uri.startswith("s3://") or not self._bucket:
            raise ConfigError(f"{uri}: this names no bucket; use s3://bucket/prefix")
        self._prefix = f"{prefix}/" if prefix else ""
        # Botocore's own retries must not eat all of little patience.
        clients = make_clients(self._bucket, options, ATTEMPTS if give_up_after_seconds > 60 else 2)
        self._client, self._data_client, self._endpoint = clients.control, clients.data, clients.endpoint
        self._give_up_after_seconds = give_up_after_seconds
        self._encryption = encryption(options)
        self._checksum = {"ChecksumAlgorithm": "CRC64NVME"}
        self.conditional = True

    def get(self, key: str) -> bytes:
        damage = ""
        for _ in range(3):
            try:
                with self._errors("read", key):
                    answer = self._client.get_object(**self._at(key), ChecksumMode="ENABLED")
                    data: bytes = answer["Body"].read()  # botocore compares the CRC, if there is one
            except Damaged as error:
                damage = str(error)
                continue
            entry, md5 = _described(key, answer)
            if md5 is None or entry.crc64nvme or hashlib.md5(data, usedforsecurity=False).hexdigest() == md5:
                return data
            damage = f"read {self.uri}/{key}: the bytes that came do not have the MD5 that the store gives, {md5}"
        raise StorageError(f"{damage}; three times: the network, a proxy or the store damages what it carries")

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self.conditional:
            return self._put_if_not_seen(key, data)
        try:
            self._write(key, data, IfNoneMatch="*")
            return True
        except StorageError as error:
            if _answered(error)[1] == 412:
                # Perhaps our own first try: its answer was lost, and it was sent again.
                return self._same(key, data)
            if not _unknown(error):
                raise
        written = self._put_if_not_seen(key, data)
        self.conditional = False
        _log.warning(
            "%s knows no conditional writes: two writers of one record in %s can miss each other",
            self._endpoint,
            self.uri,
        )
        return written

    def stat(self, key: str) -> Entry:
        return self._head(key)[0]

    def list(self, prefix: str) -> list[Entry]:
        found = []
        with self._errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._prefix)
                    if key and not key.endswith("/"):  # consoles leave empty objects to stand for folders
                        found.append(Entry(key, item["Size"], item["ETag"]))
        return sorted(found, key=lambda entry: entry.key)

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETE_AT_ONCE):
            batch = keys[start : start + DELETE_AT_ONCE]
            try:
                self._delete_batch(batch)
            except StorageError as error:
                if not _unknown(error):
                    raise
                _log.warning("%s does not delete many objects at once; deleting one by one", self._endpoint)
                for key in batch:
                    with self._errors("delete", key):
                        self._client.delete_object(**self._at(key))

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        entry, md5 = self._head(key)
        uri = f"{self.uri}/{key}"
        check_expected(entry, expect, uri)
        md5 = md5 if entry.size <= MD5_UP_TO_BYTES else None
        source = transfer.Source(self._data_client, self._bucket, self._prefix + key, uri, self._endpoint, entry, md5)
        return transfer.download(source, path, progress, self._give_up_after_seconds)

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        counted = Counted(progress)
        with disk_errors(path):
            size = path.stat().st_size
            try:
                self._send(path, key, counted, self._checksum)
            except StorageError as error:
                if not (self._checksum and _unknown(error)):
                    raise
                counted.take_back()
                self._send(path, key, counted, {})
                self._no_checksums()
        stored = self.stat(key).size
        if stored != size:  # a store that does not know trailing checksums may keep their framing as content
            raise StorageError(
                f"{self.uri}/{key} has {stored} bytes after writing {size}: {self._endpoint} does not keep what it gets"
            )

    def local_path(self, key: str) -> Path | None:
        return None

    def _write(self, key: str, data: bytes, **condition: str) -> None:
        """One PUT; one more without checksum where the store does not know that."""

        def put(checksum: dict[str, str]) -> None:
            with self._errors("write", key):
                self._client.put_object(**self._at(key), Body=data, **condition, **checksum, **self._encryption)

        try:
            return put(self._checksum)
        except StorageError as error:
            if not (self._checksum and _unknown(error)):
                raise
        put({})
        return self._no_checksums()

    def _send(self, path: Path, key: str, progress: Progress, checksum: dict[str, str]) -> None:
        from boto3.s3.transfer import TransferConfig

        # Classic, because the CRT client that "auto" may choose ignores the endpoint.
        config = TransferConfig(
            multipart_threshold=UPLOAD_PART_BYTES,
            multipart_chunksize=UPLOAD_PART_BYTES,
            max_concurrency=4,
            preferred_transfer_client="classic",
        )
        extra = {**checksum, **self._encryption}
        with self._errors("write", key):
            self._client.upload_file(str(path), **self._at(key), ExtraArgs=extra, Callback=progress, Config=config)

    def _put_if_not_seen(self, key: str, data: bytes) -> bool:
        """Look, write, look again: the best there is without conditional writes."""
        try:
            return self.get(key) == data
        except NotFound:
            self._write(key, data)
            return self._same(key, data)

    def _same(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data
        except NotFound:
            raise Transient(f"{self.uri}/{key} was deleted while it was being written") from None

    def _head(self, key: str) -> tuple[Entry, str | None]:
        """(entry, MD5 where known). A HEAD answers 404 without saying whether the key or the bucket is missing: ask."""
        try:
            with self._errors("read", key):
                return _described(key, self._client.head_object(**self._at(key), ChecksumMode="ENABLED"))
        except NotFound:
            try:
                with self._errors("read", ""):
                    self._client.head_bucket(Bucket=self._bucket)
            except NotFound:
                raise missing_bucket(self.uri, self._bucket, self._endpoint) from None
            except StorageError:
                pass  # who may read objects may not be allowed to ask this
            raise

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._errors("delete", keys[0]):
            objects = [{"Key": self._prefix + key} for key in keys]
            answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True})
        for fault in answer.get("Errors", ()):
            if fault.get("Code") != "NoSuchKey":
                kind = (
                    Transient
                    if fault.get("Code") in ("InternalError", "SlowDown", "ServiceUnavailable")
                    else StorageError
                )
                key, why = fault.get("Key"), f"{fault.get('Code')}: {fault.get('Message')}"
                raise kind(
                    f"delete s3://{self._bucket}/{key} was refused by {self._endpoint} ({why}); check s3:DeleteObject"
                )

    def _at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _errors(self, operation: str, key: str) -> AbstractContextManager[None]:
        return s3_errors(operation, f"{self.uri}/{key}", self._bucket, self._endpoint)

    def _no_checksums(self) -> None:
        self._checksum = {}
        _log.warning("%s does not take CRC64NVME checksums; %s is written without them", self._endpoint, self.uri)


def _described(key: str, answer: dict[str, Any]) -> tuple[Entry, str | None]:
    entry = Entry(key, int(answer["ContentLength"]), str(answer.get("ETag", "")), _whole_crc(answer))
    customer_key = answer.get("SSECustomerAlgorithm")
    return entry, md5_in(entry.etag, customer_key or answer.get("ServerSideEncryption"))


def _whole_crc(answer: dict[str, Any]) -> str | None:
    crc = answer.get("ChecksumCRC64NVME")
    return str(crc) if crc and "-" not in crc and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else None


def _answered(error: StorageError) -> tuple[str, int]:
    cause = error.__cause__
    if cause is not None and not hasattr(cause, "response"):
        cause = cause.__context__
    return status_of(cause)


def _unknown(error: StorageError) -> bool:
    code, status = _answered(error)
    return code in _UNKNOWN_CODES or status in (405, 411, 501)
