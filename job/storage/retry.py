"""Any store, made patient: what may help on another try is tried again, until time is up."""

import logging
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from job.errors import Stopped
from job.storage.store import Counted, Entry, ObjectStore, Progress, Transient

LONGEST_PAUSE_SECONDS = 30.0

_log = logging.getLogger(__name__)
T = TypeVar("T")


class RetryingStore:
    """The same interface. Only Transient errors are retried; each call has `give_up_after_seconds` of its own.

    Once `stopped()` is true, transfers and waits between tries raise Stopped; small calls that need no wait still work.
    """

    def __init__(
        self,
        inner: ObjectStore,
        give_up_after_seconds: float = 900,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.uri = inner.uri
        self._stopped = stopped
        self._inner = inner
        self._give_up_after_seconds = give_up_after_seconds
        self._sleep, self._clock = sleep, clock

    def get(self, key: str) -> bytes:
        return self._retrying(lambda: self._inner.get(key))

    def read(self, key: str, start: int, size: int) -> bytes:
        return self._retrying(lambda: self._inner.read(key, start, size))

    def put(self, key: str, data: bytes) -> None:
        self._retrying(lambda: self._inner.put(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._retrying(lambda: self._inner.put_if_absent(key, data))

    def stat(self, key: str) -> Entry:
        return self._retrying(lambda: self._inner.stat(key))

    def list(self, prefix: str) -> list[Entry]:
        return self._retrying(lambda: self._inner.list(prefix))

    def delete(self, keys: Sequence[str]) -> None:
        self._retrying(lambda: self._inner.delete(keys))

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        counted = Counted(self._heeding(progress))
        return self._retrying(lambda: self._inner.download(key, path, counted, expect), counted)

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        counted = Counted(self._heeding(progress))
        self._retrying(lambda: self._inner.upload(path, key, counted), counted)

    @property
    def conditional(self) -> bool:
        return self._inner.conditional

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    def _heeding(self, progress: Progress | None) -> Progress:
        def heed(count: int) -> None:
            if self._stopped():
                raise Stopped(f"stopped in the middle of a transfer with {self.uri}")
            if progress is not None:
                progress(count)

        return heed

    def _retrying(self, call: Callable[[], T], counted: Counted | None = None) -> T:
        start, tries = self._clock(), 0
        while True:
            tries += 1
            try:
                return call()
            except Transient as error:
                # Half fixed, half random: many jobs that lost the same store do not come back in step.
                pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0)
                spent = self._clock() - start
                if spent + pause > self._give_up_after_seconds:
                    times = "1 try" if tries == 1 else f"{tries} tries"
                    raise type(error)(f"{error} (gave up after {spent:.0f} s and {times})") from error
                _log.warning("%s; trying again in %.0f s", error, pause)
                if counted:
                    counted.take_back()
                self._sleep_with_signs_of_life(pause, counted)

    def _sleep_with_signs_of_life(self, seconds: float, counted: Counted | None) -> None:
        """A stop, by `stopped` or raised by `progress`, is heard while waiting."""
        while seconds > 0:
            if self._stopped():
                raise Stopped(f"stopped while waiting for {self.uri}, which does not answer")
            self._sleep(min(1.0, seconds))
            seconds -= 1.0
            if counted:
                counted(0)
