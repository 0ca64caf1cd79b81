"""Report files go up on a thread of their own: a slow or unreachable store never holds the supervisor."""

import threading
from collections.abc import Callable, Sequence


class Uploads:
    """Runs `jobs` (each raises what the store raises and keeps what is not stored) when asked; one round at a time.

    A failure is said once until a round succeeds again; each round tries everything that is left.
    """

    def __init__(self, jobs: Sequence[Callable[[], None]], say: Callable[[str], None]) -> None:
        self._jobs, self._say = jobs, say
        self._due, self._last = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._work, name="report-uploads", daemon=True)
        self._thread.start()

    def soon(self) -> None:
        """Ask for a round; returns at once."""
        self._due.set()

    def close(self, bound_seconds: float) -> None:
        """One last round, waited for within a bound."""
        self._last.set()
        self._due.set()
        self._thread.join(bound_seconds)
        if self._thread.is_alive():
            self._say("the last report files were not stored in time")

    def _work(self) -> None:
        last = False
        while not last:
            self._due.wait()
            self._due.clear()
            last = self._last.is_set()  # read before the round: it then holds all that came before close
            self._round()

    def _round(self) -> None:
        failures = []
        for job in self._jobs:
            try:
                job()
            except Exception as error:  # whatever a store does, it is only the report
                failures.append(error)
        if failures and not self._failing:
            self._say(f"report files could not be stored, to be tried again: {failures[0]}")
        self._failing = bool(failures)
