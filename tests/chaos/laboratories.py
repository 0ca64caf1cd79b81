"""A laboratory whose inputs and runs lie in a bucket of its own."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from tests.bucket import Bucket
from tests.chaos.experiment import Laboratory
from tests.chaos.warm import Warm
from tests.servers import KEYS


@contextlib.contextmanager
def on_s3(warm: Warm, endpoint: str, folder: Path, name: str) -> Iterator[Laboratory]:
    """This process's own environment reaches the bucket too, while the block lasts."""
    extra = {
        **KEYS,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-aws-credentials"),
        "NO_PROXY": "127.0.0.1",
    }
    with mock.patch.dict(os.environ, extra):
        bucket = Bucket(endpoint, name, extra)
        bucket.client().create_bucket(Bucket=bucket.name)
        yield Laboratory(folder, warm, bucket.uri, extra)
