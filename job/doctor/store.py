"""A store, probed as a run would use it, below a prefix of the probes' own, which is cleaned up again."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from job.storage.filesystem import existing, probe_filesystem
from job.storage.finding import Finding
from job.storage.policy import run_policy
from job.storage.probe import StoreProbes
from job.storage.store import BucketOptions, ObjectStore, open_store
from job.workspace import scratch_folder

PATIENCE_SECONDS = 20.0  # somebody waits for it: what is away is said to be so soon


class StoreExamination:
    """`left`: keys that could not be removed again, once the findings have been read to their end."""

    def __init__(self, uri: str, buckets: Mapping[str, BucketOptions], stopped: Callable[[], bool]) -> None:
        """Raises: ConfigError where it is no store; StorageError for a missing profile."""
        self._store = open_store(uri, buckets, PATIENCE_SECONDS, stopped)
        self._buckets, self._stopped = buckets, stopped
        self.uri = self._store.uri
        self.folder = f"doctor-{secrets.token_hex(6)}"
        self.policy = self._policy()
        self.left: list[str] = []

    def findings(self) -> Iterator[Finding]:
        """Raises: Stopped."""
        if self.uri.startswith("s3://"):
            from job.storage.clock import probe_clock

            yield from probe_clock(self.uri, self._buckets)
        with _made_again(self._store), scratch_folder("doctor") as scratch:
            probes = StoreProbes(self._store, self.folder, scratch, stopped=self._stopped)
            try:
                local = self._store.local_path(self.folder)
                if local is not None:
                    yield from probe_filesystem(local.parent, self.folder)
                yield from probes.run()
            finally:
                self.left = probes.clean_up()

    def _policy(self) -> dict[str, Any] | None:
        if not self.uri.startswith("s3://"):
            return None
        from job.storage.s3_client import encryption, make_clients

        bucket = self.uri.removeprefix("s3://").partition("/")[0]
        options = self._buckets.get(bucket)
        partition = make_clients(bucket, options, 1).control.meta.partition
        return run_policy(self.uri, encryption(options), partition)


@contextlib.contextmanager
def _made_again(store: ObjectStore) -> Iterator[None]:
    """A folder that was not there before is not there afterwards, nor its parents, unless something lies in them."""
    root = store.local_path("doctor")
    there = None if root is None else existing(root.parent)
    try:
        yield
    finally:
        if root is not None:
            folder = root.parent
            with contextlib.suppress(OSError):
                while folder != there:
                    folder.rmdir()
                    folder = folder.parent
