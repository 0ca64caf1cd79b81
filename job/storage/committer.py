"""Commits snapshots on a thread while training goes on: one upload in flight, the newest waiting snapshot wins."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.errors import ConfigError, Fenced, JobError, StorageError
from job.storage.attempts import Owner
from job.storage.checkpoints import Provenance, commit, step_of
from job.storage.pruning import prune
from job.storage.store import ObjectStore

Evaluations = list[dict[str, Any]]


@dataclass(frozen=True)
class Committed:
    step: int
    key: str
    seconds: float
    size_bytes: int


class Committer:
    """`offer` and `take` are for one thread, the supervisor's.

    `needs_best`: the result will be made of the best evaluation's commit, so that one is never left out: no later
    commit may name a best step that nobody can go back to. `before_first` is called once, before the first commit.
    """

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
        needs_best: bool = False,
        before_first: Callable[[], object] = lambda: None,
    ) -> None:
        self._store, self._owner, self._source, self._keep = store, owner, source, keep
        self._best_step, self._say, self._needs_best = best_step, say, needs_best
        self.parent = parent  # key of the newest commit, this attempt's or the one it resumed from
        self.evaluations = evaluations  # as that commit has them
        self._offered: set[int] = set()
        self._waiting: list[tuple[int, Path]] = []  # oldest first
        self._put_off: tuple[int, Path] | None = None  # the best, which could not be committed yet
        self._before_first = before_first
        self._busy = self._begun = self._swept = self._warned = False
        self._upload_began: float | None = None
        self._done: list[Committed] = []
        self.last_error: JobError | None = None  # of the newest snapshot that was tried
        self._fatal: JobError | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True, name="committer").start()

    def offer(self, snapshots: Sequence[tuple[int, Path]]) -> None:
        """Whole snapshots, oldest first. Raises: Fenced when a commit met a newer attempt, ConfigError another run."""
        with self._changed:
            if self._fatal is not None:
                raise self._fatal
            new = [(step, folder) for step, folder in snapshots if step not in self._offered]
            if not new:
                return
            self._offered.update(step for step, _ in new)
            again, self._put_off = [self._put_off] if self._put_off else [], None
            queue = [*again, *self._waiting, *new]
            best = self._best_of(queue[-1])
            self._waiting = [snapshot for snapshot in queue[:-1] if snapshot[0] == best] + queue[-1:]
            for snapshot in queue:
                if snapshot not in self._waiting:
                    shutil.rmtree(snapshot[1], ignore_errors=True)
            self._changed.notify_all()

    def take(self) -> list[Committed]:
        """The commits since the last call."""
        with self._changed:
            done, self._done = self._done, []
            return done

    def drain(self, timeout_seconds: float | None) -> bool:
        """Wait until nothing waits or uploads; False when the time was not enough. Raises as `offer`."""
        with self._changed:
            whole = self._changed.wait_for(
                lambda: (not self._waiting and not self._busy) or self._fatal is not None, timeout_seconds
            )
            if self._fatal is not None:
                raise self._fatal
            return whole

    def trained_under(self, strategy: str) -> None:
        """From the next commit on: memory may have asked for another one."""
        self._source = replace(self._source, strategy=strategy)

    def go_on_from(self, parent: str | None, evaluations: Evaluations) -> None:
        """The ranks begin again at this commit; call when nothing waits. Steps that were offered come once more."""
        with self._changed:
            self.parent, self.evaluations = parent, evaluations
            self._offered.clear()
            self._put_off, self.last_error = None, None

    @property
    def uploading_seconds(self) -> float | None:
        """How long the upload under way has taken so far; None where there is none."""
        return None if self._upload_began is None else time.monotonic() - self._upload_began

    @property
    def last_step(self) -> int:
        return step_of(self.parent) if self.parent else 0

    def _best_of(self, snapshot: tuple[int, Path]) -> int | None:
        """The step whose commit has to be there before this snapshot's."""
        return self._best_step(_evaluations(snapshot[1])) if self._needs_best else None

    def _work(self) -> None:
        while self._fatal is None:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                snapshot, self._busy = self._waiting.pop(0), True
            self._upload_began = time.monotonic()
            error = self._try(*snapshot)
            self._upload_began = None
            with self._changed:
                self.last_error, self._busy = error, False
                if isinstance(error, Fenced | ConfigError):  # neither is better at the next snapshot
                    self._fatal = error
                if error is not None and self._best_of(snapshot) == snapshot[0]:
                    self._put_off = snapshot
                else:
                    shutil.rmtree(snapshot[1], ignore_errors=True)
                self._changed.notify_all()

    def _try(self, step: int, folder: Path) -> JobError | None:
        try:
            self._commit(step, folder)
        except Fenced as error:
            return error
        except JobError as error:
            self._say(f"step {step} was not committed, training goes on: {error}")
            return error
        except Exception as error:
            self._say(f"step {step} was not committed, training goes on: {type(error).__name__}: {error}")
            return JobError(f"step {step} was not committed: {type(error).__name__}: {error}")
        return None

    def _commit(self, step: int, folder: Path) -> None:
        begun = time.monotonic()
        if self._put_off is not None and self._best_of((step, folder)) == self._put_off[0]:
            raise StorageError(f"step {self._put_off[0]}, the best so far, has to be committed first")
        if not self._begun:
            self._before_first()
            self._begun = True
        size = sum(file.stat().st_size for file in folder.iterdir())
        evaluations = _evaluations(folder)
        key = commit(self._store, self._owner, folder, step, self.parent, evaluations, self._source)
        self.parent, self.evaluations = key, evaluations
        with self._changed:
            self._done.append(Committed(step, key, time.monotonic() - begun, size))
        try:
            best = self._best_step(evaluations)
            prune(self._store, self._owner, key, self._keep, best, self._warn, sweep=not self._swept)
            self._swept = True
        except Fenced:
            raise
        except Exception as error:  # the commit stands
            self._warn(f"old checkpoints were not deleted: {error}")

    def _warn(self, message: str) -> None:
        """Once: without permission to delete, every commit would say it again."""
        if not self._warned:
            self._warned = True
            self._say(message)


def _evaluations(snapshot: Path) -> Evaluations:
    found: Evaluations = json.loads((snapshot / "state.json").read_text(encoding="utf-8"))["evaluations"]
    return found
