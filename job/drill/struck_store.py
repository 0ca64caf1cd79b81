"""A store before the run's own: says when an upload, a record, a result is under way. Nothing else of it changes."""

import threading
from collections.abc import Sequence
from pathlib import Path

from job.drill.plan import STRIKE_STEP, Blow, Phase
from job.drill.striker import Standing, Striker
from job.storage.checkpoints import step_of
from job.storage.records import COMMIT_KEY
from job.storage.store import Entry, ObjectStore, Progress


class StruckStore:
    """Wraps any store; the same interface."""

    def __init__(self, inner: ObjectStore, striker: Striker, standing: Standing) -> None:
        self.uri = inner.uri
        self._inner, self._striker, self._standing = inner, striker, standing
        self._uploads: dict[str, int] = {}  # files begun, by folder
        self._counting = threading.Lock()

    @property
    def conditional(self) -> bool:
        return self._inner.conditional

    def get(self, key: str) -> bytes:
        return self._inner.get(key)

    def read(self, key: str, start: int, size: int) -> bytes:
        return self._inner.read(key, start, size)

    def put(self, key: str, data: bytes) -> None:
        self._inner.put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if not COMMIT_KEY.fullmatch(key):
            return self._inner.put_if_absent(key, data)
        step = step_of(key)
        if step == STRIKE_STEP:
            self._striker.reached(Phase.BEFORE_RECORD)
        if done := self._inner.put_if_absent(key, data):
            self._standing.commit = max(step, self._standing.commit)
            if step == STRIKE_STEP:
                self._striker.reached(Phase.AFTER_RECORD)
        return done

    def stat(self, key: str) -> Entry:
        return self._inner.stat(key)

    def list(self, prefix: str) -> list[Entry]:
        return self._inner.list(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        self._inner.delete(keys)

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        return self._inner.download(key, path, progress, expect)

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        """In the middle: while the second file of a folder is on its way, with others to come."""
        phase = self._phase_of(key)
        if phase is None or not self._second(key):
            self._inner.upload(path, key, progress)
            return

        def advance(count: int) -> None:
            if count > 0:
                self._striker.reached(phase)
            if progress is not None:
                progress(count)

        self._inner.upload(path, key, advance)
        self._striker.reached(phase)  # a store that says nothing of its progress

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    def _phase_of(self, key: str) -> Phase | None:
        if key.startswith("checkpoints/") and f"/step-{STRIKE_STEP}-" in key:
            return Phase.MID_UPLOAD
        at_rank = self._striker.case is not None and self._striker.case.blow == Blow.KILL_RANK  # all have left by now
        return Phase.FINAL if key.startswith("final/") and not at_rank else None

    def _second(self, key: str) -> bool:
        folder = key.rpartition("/")[0]
        with self._counting:
            self._uploads[folder] = self._uploads.get(folder, 0) + 1
            return self._uploads[folder] == 2
