"""What a run needs of its store, tried one thing after the other under a fresh prefix, which is cleaned up again.

Everything goes through the store object a run would use, so what is found out is what a run would meet.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from job.errors import JobError, Stopped, StorageError
from job.storage import needs
from job.storage.finding import Finding, Lacking, Lagging, Probe, Status
from job.storage.parallel import in_parallel
from job.storage.s3_errors import answered
from job.storage.store import NotFound, ObjectStore

RACERS = 8
LAG_SECONDS = 10.0  # a listing or an old content that is later than this is taken for wrong
LAG_POLL_SECONDS = 0.25
LARGE_BYTES = (33 << 20) + 4711  # above the size that goes up in one piece; comes down in three, the last one odd
WORTH_SAYING_SECONDS = 0.1


class StoreProbes:
    """Keys lie below `folder`, which nothing else uses; `scratch` is a local folder for large files."""

    def __init__(
        self,
        store: ObjectStore,
        folder: str,
        scratch: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store, self._folder, self._scratch = store, folder, scratch
        self._clock, self._sleep, self._stopped = clock, sleep, stopped
        self._written: set[str] = set()
        self._first, self._second = secrets.token_bytes(64), secrets.token_bytes(64)
        self._sha256 = ""

    def run(self) -> Iterator[Finding]:
        """Findings in order, each as soon as it is known. Raises: Stopped."""
        lost: set[str] = set()
        for probe, work in self._probes():
            if self._stopped():
                raise Stopped("stopped while the store was probed")
            if lost.intersection(probe.needs):
                lost.add(probe.name)
                why = " and ".join(f"needs '{name}'" for name in probe.needs if name in lost)
                yield Finding(probe.name, Status.NOT_TRIED, why, action=probe.action)
                continue
            finding = self._tried(probe, work)
            if finding.status != Status.OK and not isinstance(finding.error, Lagging):
                lost.add(probe.name)
            yield finding

    def clean_up(self) -> list[str]:
        """Deletes what was written; returns what had to be left, as keys."""
        left = sorted(self._written)
        try:
            self._store.delete(left)
        except JobError:
            return left
        return []

    def _tried(self, probe: Probe, work: Callable[[], str]) -> Finding:
        began = self._clock()
        try:
            seen = work()
        except Stopped:
            raise
        except Lagging as error:
            return replace(probe.lacking(error), status=Status.WARNING)
        except StorageError as error:
            found = probe.lacking(error)
            return (
                replace(found, seen=f"refused: {answered(error)[0]}, allow {probe.action}") if _denied(error) else found
            )
        except JobError as error:
            return probe.lacking(error)
        seconds = self._clock() - began
        return probe.ok(seen or (f"{seconds:.1f}s" if seconds >= WORTH_SAYING_SECONDS else ""))

    def _probes(self) -> list[tuple[Probe, Callable[[], str]]]:
        return [
            (needs.REACH, self._reach),
            (needs.LIST, self._list),
            (needs.PUT, self._put),
            (needs.GET, self._get),
            (needs.LISTED, self._listed),
            (needs.CONDITIONAL, self._conditional),
            (needs.OWN, self._own),
            (needs.RACE, self._race),
            (needs.OVERWRITE, self._overwrite),
            (needs.UPLOAD, self._upload),
            (needs.DOWNLOAD, self._download),
            (needs.DELETE, self._delete),
        ]

    def _key(self, name: str) -> str:
        key = f"{self._folder}/{name}"
        self._written.add(key)
        return key

    # ---- the probes: each returns what it saw, or raises

    def _reach(self) -> str:
        try:
            self._store.list(f"{self._folder}/")
        except StorageError as error:
            if not _denied(error):
                raise
        return ""

    def _list(self) -> str:
        self._store.list(f"{self._folder}/")
        return ""

    def _put(self) -> str:
        self._store.put(self._key("one.json"), self._first)
        return ""

    def _get(self) -> str:
        if self._store.get(self._key("one.json")) != self._first:
            raise Lacking("what was read is not what was written just before")
        return ""

    def _listed(self) -> str:
        key = self._key("one.json")

        def seen() -> bool:
            return key in [entry.key for entry in self._store.list(f"{self._folder}/")]

        return self._waited(seen, "a new object was listed", "a new object was not listed")

    def _conditional(self) -> str:
        key = self._key("claim.json")
        self._store.put_if_absent(key, self._first)
        refused = not self._store.put_if_absent(key, self._second)
        if not self._store.conditional:
            raise Lacking("the store does not know the header If-None-Match")
        if not refused or self._store.get(key) != self._first:
            raise Lacking("the store overwrote the object in silence")
        return ""

    def _own(self) -> str:
        if not self._store.put_if_absent(self._key("claim.json"), self._first):
            raise Lacking("the second write of the same bytes was taken for another writer's")
        return ""

    def _race(self) -> str:
        key = self._key("race.json")
        contents = [secrets.token_bytes(64) for _ in range(RACERS)]

        def write(content: bytes, check: Callable[[], None]) -> bool:
            return self._store.put_if_absent(key, content)

        won = in_parallel(write, contents, RACERS, lambda: None)
        winners = [content for content, first in zip(contents, won, strict=True) if first]
        if len(winners) != 1 or self._store.get(key) != winners[0]:
            raise Lacking(f"{len(winners)} of {RACERS} writers of one key were told that they had won")
        return f"{RACERS} writers"

    def _overwrite(self) -> str:
        key = self._key("beat.json")
        self._store.put(key, self._first)
        self._store.put(key, self._second)
        return self._waited(
            lambda: self._store.get(key) == self._second, "an overwritten object was read", "an old content was read"
        )

    def _upload(self) -> str:
        source = self._scratch / "large"
        block = secrets.token_bytes(1 << 20)
        with source.open("wb") as file:
            for at in range(0, LARGE_BYTES, len(block)):
                file.write(block[: LARGE_BYTES - at])
        with source.open("rb") as file:
            self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        began = self._clock()
        self._store.upload(source, self._key("large.bin"))
        source.unlink()
        return self._pace(self._clock() - began, "in parts")

    def _download(self) -> str:
        target, began = self._scratch / "back", self._clock()
        entry = self._store.download(self._key("large.bin"), target)
        seconds = self._clock() - began
        with target.open("rb") as file:
            same = hashlib.file_digest(file, "sha256").hexdigest() == self._sha256
        target.unlink()
        if not same or entry.size != LARGE_BYTES:
            raise Lacking("the bytes that came back are not those that were written")
        return self._pace(seconds, "by ranges")

    def _delete(self) -> str:
        key = self._key("gone.json")
        self._store.put(key, self._first)
        self._store.delete([key])
        try:
            self._store.stat(key)
        except NotFound:
            return ""
        raise Lacking("an object that was deleted is still there")

    def _pace(self, seconds: float, how: str) -> str:
        way = f" {how}" if self._store.local_path("large.bin") is None else ""
        return f"{LARGE_BYTES / 1e6:.0f} MB{way}, {LARGE_BYTES / 1e6 / max(seconds, 1e-3):.0f} MB/s"

    def _waited(self, true: Callable[[], bool], done: str, not_done: str) -> str:
        """Raises: Lagging when it became true late, Lacking when it did not within `LAG_SECONDS`."""
        began, late = self._clock(), False
        while not true():
            late = True
            if self._clock() - began > LAG_SECONDS:
                raise Lacking(f"{not_done} within {LAG_SECONDS:.0f} s")
            self._sleep(LAG_POLL_SECONDS)
        if late:
            raise Lagging(f"{done} only {self._clock() - began:.1f} s later")
        return ""


def _denied(error: StorageError) -> bool:
    """The store knows who asks, and says no: it is reached, and the credentials are good."""
    code, status = answered(error)
    return code in ("AccessDenied", "Forbidden", "403") or (not code and status == 403)
