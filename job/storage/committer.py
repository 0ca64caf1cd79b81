"""Commits snapshots on a thread while training goes on: one upload in flight, the newest waiting snapshot wins."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import Fenced, JobError
from job.storage.attempts import Owner
from job.storage.checkpoints import Provenance, commit, prune, step_of
from job.storage.store import ObjectStore

Evaluations = list[dict[str, Any]]


@dataclass(frozen=True)
class Committed:
    step: int
    key: str
    seconds: float
    size_bytes: int


class Committer:
    """`offer` and `take` are for one thread, the supervisor's."""

    def __init__(
        self,
        store: ObjectStore,
        owner: Owner,
        source: Provenance,
        parent: str | None,
        evaluations: Evaluations,
        keep: int,
        best_step: Callable[[Evaluations], int | None],
        say: Callable[[str], None],
    ) -> None:
        self._store, self._owner, self._source, self._keep = store, owner, source, keep
        self._best_step, self._say = best_step, say
        self.parent = parent  # key of the newest commit, this attempt's or the one it resumed from
        self.evaluations = evaluations  # as that commit has them
        self._offered: set[int] = set()
        self._waiting: tuple[int, Path] | None = None
        self._busy = self._swept = False
        self._done: list[Committed] = []
        self.last_error: JobError | None = None  # of the newest snapshot that was tried
        self._fenced: Fenced | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True, name="committer").start()

    def offer(self, snapshots: Sequence[tuple[int, Path]]) -> None:
        """Whole snapshots, oldest first. Raises: Fenced when a commit met a newer attempt."""
        with self._changed:
            if self._fenced is not None:
                raise self._fenced
            for step, folder in snapshots:
                if step in self._offered:
                    continue
                self._offered.add(step)
                if self._waiting is not None:
                    shutil.rmtree(self._waiting[1], ignore_errors=True)
                self._waiting = (step, folder)
                self._changed.notify_all()

    def take(self) -> list[Committed]:
        """The commits since the last call."""
        with self._changed:
            done, self._done = self._done, []
            return done

    def drain(self, timeout_seconds: float | None) -> bool:
        """Wait until nothing waits or uploads; False when the time was not enough. Raises: Fenced."""
        with self._changed:
            whole = self._changed.wait_for(
                lambda: (self._waiting is None and not self._busy) or self._fenced is not None, timeout_seconds
            )
            if self._fenced is not None:
                raise self._fenced
            return whole

    @property
    def last_step(self) -> int:
        return step_of(self.parent) if self.parent else 0

    def _work(self) -> None:
        while self._fenced is None:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                assert self._waiting is not None
                (step, folder), self._waiting, self._busy = self._waiting, None, True
            try:
                self._commit(step, folder)
                self.last_error = None
            except Fenced as error:
                self._fenced = error
            except JobError as error:
                self.last_error = error
                self._say(f"step {step} was not committed, training goes on: {error}")
            except Exception as error:
                self.last_error = JobError(f"step {step} was not committed: {type(error).__name__}: {error}")
                self._say(str(self.last_error))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _commit(self, step: int, folder: Path) -> None:
        begun = time.monotonic()
        size = sum(file.stat().st_size for file in folder.iterdir())
        evaluations = json.loads((folder / "state.json").read_text(encoding="utf-8"))["evaluations"]
        key = commit(self._store, self._owner, folder, step, self.parent, evaluations, self._source)
        self.parent, self.evaluations = key, evaluations
        with self._changed:
            self._done.append(Committed(step, key, time.monotonic() - begun, size))
        best = self._best_step(evaluations)
        prune(self._store, self._owner, key, self._keep, best, self._say, sweep=not self._swept)
        self._swept = True
