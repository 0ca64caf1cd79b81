"""A bucket of a test's own, and a plain client to look behind the code under test."""

import functools
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bucket:
    """A fresh, empty bucket. `env`: what a process needs to reach it."""

    endpoint: str
    name: str
    env: dict[str, str]

    @property
    def uri(self) -> str:
        return f"s3://{self.name}"

    def client(self) -> Any:
        """A plain client, to look behind the code under test."""
        return _client(self.endpoint)


@functools.cache
def _client(endpoint: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    return boto3.Session().client("s3", endpoint_url=endpoint, **keys)
