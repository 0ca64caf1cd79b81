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
    """Beats every few seconds on a thread while the block runs. A beat that fails is no reason to end a run.

    Each beat says how long the attempt has been running and whether it got past its first step: of an attempt that
    vanishes this is all that stays.
    """

    def __init__(
        self,
        store: ObjectStore,
        owner: Owner,
        beat_seconds: float = BEAT_SECONDS,
        fence_seconds: float = FENCE_SECONDS,
    ) -> None:
        self._store, self._owner = store, owner
        self._beat_seconds, self._fence_seconds = beat_seconds, fence_seconds
        self._began = time.monotonic()
        self._over, self._wake = threading.Event(), threading.Event()
        self._fenced: Fenced | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="heartbeat")
        self._stepped = False

    def __enter__(self) -> "Heartbeat":
        beat(self._store, self._owner, 0)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._wake.set()

    @property
    def seconds(self) -> float:
        """Since the attempt was claimed."""
        return time.monotonic() - self._began

    @property
    def stepped(self) -> bool:
        return self._stepped

    def step_taken(self) -> None:
        """The first step of the attempt is done; the next beat comes at once and says so."""
        if not self._stepped:
            self._stepped = True
            self._wake.set()

    def check(self) -> None:
        """Raises: Fenced once a newer attempt was seen."""
        if self._fenced is not None:
            raise self._fenced

    def _work(self) -> None:
        count, looked = 0, time.monotonic()
        while True:
            self._wake.wait(self._beat_seconds)
            self._wake.clear()
            if self._over.is_set():
                return
            count += 1
            with contextlib.suppress(Exception):  # the commits will say it if the store stays away
                beat(self._store, self._owner, count, self._stepped, self.seconds)
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
