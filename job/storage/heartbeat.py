"""Shows others that this attempt lives, and notices when a newer one exists."""

import contextlib
import threading
import time
from types import TracebackType

from job.errors import Fenced
from job.storage.attempts import BEAT_SECONDS, Owner, beat, check_fence
from job.storage.store import ObjectStore

FENCE_SECONDS = 30.0


class Heartbeat:
    """Beats every few seconds on a thread while the block runs. A beat that fails is no reason to end a run."""

    def __init__(
        self,
        store: ObjectStore,
        owner: Owner,
        beat_seconds: float = BEAT_SECONDS,
        fence_seconds: float = FENCE_SECONDS,
    ) -> None:
        self._store, self._owner = store, owner
        self._beat_seconds, self._fence_seconds = beat_seconds, fence_seconds
        self._over = threading.Event()
        self._fenced: Fenced | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="heartbeat")

    def __enter__(self) -> "Heartbeat":
        beat(self._store, self._owner, 0)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()

    def check(self) -> None:
        """Raises: Fenced once a newer attempt was seen."""
        if self._fenced is not None:
            raise self._fenced

    def _work(self) -> None:
        count, looked = 0, time.monotonic()
        while not self._over.wait(self._beat_seconds):
            count += 1
            with contextlib.suppress(Exception):  # the commits will say it if the store stays away
                beat(self._store, self._owner, count)
            if time.monotonic() - looked < self._fence_seconds:
                continue
            looked = time.monotonic()
            try:
                check_fence(self._store, self._owner)
            except Fenced as error:
                self._fenced = error
                return
            except Exception:
                continue
