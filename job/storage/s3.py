"""Any S3 endpoint as a store. boto3 is the control plane; `transfer` moves the bytes of downloads."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from job.errors import ConfigError, StorageError
from job.storage import transfer
from job.storage.arrival import BLAME, MD5_UP_TO_BYTES, TRIES
from job.storage.s3_client import encryption, make_clients
from job.storage.s3_errors import Damaged, answered, passes, unknown_to_store
from job.storage.s3_objects import Objects, described
from job.storage.s3_write import Writer
from job.storage.store import BucketOptions, Entry, NotFound, Progress, Transient, check_expected

ATTEMPTS = 3  # botocore's own, deaf to a stop; RetryingStore goes on from there
LIST_AT_ONCE = DELETE_AT_ONCE = 1000  # what ListObjectsV2 gives, and DeleteObjects takes

_log = logging.getLogger(__name__)


class S3Store:
    """Objects below s3://bucket/prefix. What the endpoint turns out not to know is logged once and left out."""

    def __init__(self, uri: str, options: BucketOptions | None = None, give_up_after_seconds: float = 900) -> None:
        self.uri = uri.rstrip("/")
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        if not self.uri.startswith("s3://") or not bucket:
            raise ConfigError(f"{uri}: this names no bucket; use s3://bucket/prefix")
        # Botocore's own retries must not eat all of little patience.
        clients = make_clients(bucket, options, ATTEMPTS if give_up_after_seconds > 60 else 2)
        self._client, self._data_client = clients.control, clients.data
        self._objects = Objects(self._client, bucket, f"{prefix}/" if prefix else "", self.uri, clients.endpoint)
        self._writer = Writer(self._objects, encryption(options))
        self._give_up_after_seconds = give_up_after_seconds
        self.conditional = True

    def get(self, key: str) -> bytes:
        damage = ""
        for _ in range(TRIES):
            try:
                with self._objects.reading(key):
                    answer = self._client.get_object(**self._objects.at(key), ChecksumMode="ENABLED")
                    data: bytes = answer["Body"].read()  # botocore compares the CRC, if there is one
            except Damaged as error:
                damage = str(error)
                continue
            entry, md5 = described(key, answer)
            if md5 is None or entry.crc64nvme or hashlib.md5(data, usedforsecurity=False).hexdigest() == md5:
                return data
            damage = f"read {self.uri}/{key}: the bytes that came do not have the MD5 that the store gives, {md5}"
        raise StorageError(f"{damage}; three times: {BLAME}")

    def read(self, key: str, start: int, size: int) -> bytes:
        last = start + size - 1
        try:
            with self._objects.reading(key):
                answer = self._client.get_object(**self._objects.at(key), Range=f"bytes={start}-{last}")
                # A server that knows no ranges sends the whole object: no more of it is read than was asked for.
                whole = "ContentRange" not in answer
                data: bytes = answer["Body"].read((start if whole else 0) + size)
                answer["Body"].close()
                return data[start:] if whole else data
        except StorageError as error:
            if answered(error)[1] == 416:  # it ends before
                return b""
            raise

    def put(self, key: str, data: bytes) -> None:
        self._writer.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not self.conditional:
            return self._put_if_not_seen(key, data)
        try:
            self._writer.put(key, data, IfNoneMatch="*")
            return True
        except StorageError as error:
            if answered(error)[1] == 412:
                # Perhaps our own first try: its answer was lost, and it was sent again.
                return self._same(key, data)
            if not unknown_to_store(error, self._objects.endpoint):
                raise
        written = self._put_if_not_seen(key, data)
        self.conditional = False
        _log.warning(
            "%s knows no conditional writes: two writers of one record in %s can miss each other",
            self._objects.endpoint,
            self.uri,
        )
        return written

    def stat(self, key: str) -> Entry:
        return self._objects.head(key)[0]

    def list(self, prefix: str) -> list[Entry]:
        found = []
        with self._objects.errors("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            asked = {"Bucket": self._objects.bucket, "Prefix": self._objects.prefix + prefix}
            for page in pages.paginate(**asked, PaginationConfig={"PageSize": LIST_AT_ONCE}):
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self._objects.prefix)
                    if key and not key.endswith("/"):  # consoles leave empty objects to stand for folders
                        found.append(Entry(key, item["Size"], item["ETag"]))
        return sorted(found, key=lambda entry: entry.key)

    def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), DELETE_AT_ONCE):
            batch = keys[start : start + DELETE_AT_ONCE]
            try:
                self._delete_batch(batch)
            except StorageError as error:
                if not unknown_to_store(error, self._objects.endpoint):
                    raise
                _log.warning("%s does not delete many objects at once; deleting one by one", self._objects.endpoint)
                for key in batch:
                    with self._objects.errors("delete", key):
                        self._client.delete_object(**self._objects.at(key))

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        entry, md5 = self._objects.head(key)
        uri = f"{self.uri}/{key}"
        check_expected(entry, expect, uri)
        md5 = md5 if entry.size <= MD5_UP_TO_BYTES else None
        source = transfer.Source(
            self._data_client, self._objects.bucket, self._objects.prefix + key, uri, self._objects.endpoint, entry, md5
        )
        return transfer.download(source, path, progress, self._give_up_after_seconds)

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        self._writer.upload(path, key, progress)

    def local_path(self, key: str) -> Path | None:
        return None

    def _put_if_not_seen(self, key: str, data: bytes) -> bool:
        """Look, write, look again: the best there is without conditional writes."""
        try:
            return self.get(key) == data
        except NotFound:
            self._writer.put(key, data)
            return self._same(key, data)

    def _same(self, key: str, data: bytes) -> bool:
        try:
            return self.get(key) == data
        except NotFound:
            raise Transient(f"{self.uri}/{key} was deleted while it was being written") from None

    def _delete_batch(self, keys: Sequence[str]) -> None:
        with self._objects.errors("delete", keys[0]):
            objects = [{"Key": self._objects.prefix + key} for key in keys]
            answer = self._client.delete_objects(
                Bucket=self._objects.bucket, Delete={"Objects": objects, "Quiet": True}
            )
        for fault in answer.get("Errors", ()):
            if (code := fault.get("Code", "")) != "NoSuchKey":
                kind = Transient if passes(code) else StorageError
                raise kind(
                    f"delete s3://{self._objects.bucket}/{fault.get('Key')} was refused by {self._objects.endpoint} "
                    f"({code}: {fault.get('Message')}); check s3:DeleteObject"
                )
