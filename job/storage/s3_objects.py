"""Objects of one bucket below a prefix as the store describes them; what is missing is told from what is refused."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from job.errors import StorageError
from job.storage.checksum import md5_in
from job.storage.s3_errors import answered, missing_bucket, s3_errors
from job.storage.store import Entry, NotFound


@dataclass(frozen=True)
class Objects:
    client: Any
    bucket: str
    prefix: str  # with its slash, or empty
    uri: str
    endpoint: str

    def at(self, key: str) -> dict[str, Any]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def errors(self, operation: str, key: str) -> AbstractContextManager[None]:
        return s3_errors(operation, f"{self.uri}/{key}", self.bucket, self.endpoint)

    @contextmanager
    def reading(self, key: str) -> Iterator[None]:
        """Whoever may list only below a prefix is refused what is missing (403): a listing tells the two apart."""
        try:
            with self.errors("read", key):
                yield
        except StorageError as error:
            if answered(error)[1] == 403 and not self._may_be_there(key):
                raise NotFound(f"{self.uri}/{key} does not exist at {self.endpoint}; check the name") from error
            raise

    def head(self, key: str) -> tuple[Entry, str | None]:
        """(entry, MD5 where known). A HEAD answers 404 without saying whether the key or the bucket is missing: ask."""
        try:
            with self.reading(key):
                return described(key, self.client.head_object(**self.at(key), ChecksumMode="ENABLED"))
        except NotFound:
            try:
                with self.errors("read", ""):
                    self.client.head_bucket(Bucket=self.bucket)
            except NotFound:
                raise missing_bucket(self.uri, self.bucket, self.endpoint) from None
            except StorageError:
                pass  # who may read objects may not be allowed to ask this
            raise

    def _may_be_there(self, key: str) -> bool:
        try:
            with self.errors("list", key):
                page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key, MaxKeys=1)
        except StorageError:
            return True
        return any(item["Key"] == self.prefix + key for item in page.get("Contents", ()))


def described(key: str, answer: dict[str, Any]) -> tuple[Entry, str | None]:
    """(entry, MD5 where known) of an answer to GET, HEAD, or, with the length added, PUT."""
    entry = Entry(key, int(answer["ContentLength"]), str(answer.get("ETag", "")), _whole_crc(answer))
    customer_key = answer.get("SSECustomerAlgorithm")
    return entry, md5_in(entry.etag, customer_key or answer.get("ServerSideEncryption"))


def _whole_crc(answer: dict[str, Any]) -> str | None:
    crc = answer.get("ChecksumCRC64NVME")
    return str(crc) if crc and "-" not in crc and answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT" else None
