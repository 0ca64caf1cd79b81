"""What an attempt does with its run's store, by the product's own functions; chance and clocks are counters."""

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import job.publish as publishing
from job import settled
from job.config import RunConfig, trajectory, trajectory_digest
from job.errors import ConfigError, DataError, ExitCode, Fenced, JobError
from job.inputs import Inputs
from job.rundir import RunDir
from job.settled import begin, read_result, read_run, refuse_another_run
from job.storage import identity
from job.storage.attempts import Owner, beat, claim, write_end
from job.storage.checkpoints import Provenance, download_files, restore, step_of
from job.storage.committer import Committer
from job.storage.records import COMMIT_KEY, PreparedRecord
from job.storage.retry import RetryingStore
from job.storage.store import ObjectStore
from job.versions import versions
from tests.simulation import content
from tests.simulation.life import CutOff, FedStore, Life, Note, Script

FINGERPRINT = "f1"


class InPlace(Committer):
    """The committer, whose thread is not started: a snapshot's commit is tried before `attempt` returns.

    `acknowledged` is called with the key of a commit as soon as it stands, which is before older ones are pruned.
    """

    acknowledged: Callable[[str], None] = staticmethod(lambda key: None)

    @property
    def parent(self) -> str | None:
        return self._parent

    @parent.setter
    def parent(self, key: str | None) -> None:
        self._parent = key
        if key is not None:
            self.acknowledged(key)

    def attempt(self, step: int, folder: Path) -> JobError | None:
        self.last_error = self._try(step, folder)
        if isinstance(self.last_error, Fenced | ConfigError):
            raise self.last_error
        return self.last_error


class Stage:
    """One folder for all lives of all actors, and the counters that stand for chance and time."""

    def __init__(self, path: Path, scripts: Sequence[Script]) -> None:
        self.scripts = scripts
        self._path = path
        raw = {"run": "s3://runs/one", "model": {"base": "/base", "precision": "fp32"}, "data": {"train": ["/d.jsonl"]}}
        self.config = RunConfig.from_dict({**raw, "lora": {}})
        self._raw, self._fields = self.config.to_dict(), trajectory(self.config)
        self._digest, self._versions = trajectory_digest(self.config), versions()
        self._life, self._script = Life([]), scripts[0]
        self.lives = 0

    @contextlib.contextmanager
    def set(self) -> Iterator["Stage"]:
        """While this block runs, chance and time are counters, and what follows from the config is computed once."""
        process = {"boot": "another machine's", "pids": "", "pid": 1, "started": "1"}
        with (
            mock.patch.object(secrets, "token_hex", lambda count: self._draw(2 * count)),
            mock.patch.object(secrets, "token_bytes", lambda count: self._draw(count).encode()),
            mock.patch.object(time, "gmtime", lambda *_: time.struct_time((2000, 1, 1, 0, 0, 0, 0, 1, 0))),
            mock.patch.object(time, "monotonic", lambda: self._life.clock_seconds),
            mock.patch.object(time, "sleep", self._sleep),
            mock.patch.object(threading.Thread, "start", lambda thread: None),
            mock.patch.object(identity, "this_process", lambda: process),
            mock.patch.object(identity, "gone", lambda record: False),
            mock.patch.object(settled, "trajectory", lambda config: self._fields),
            mock.patch.object(settled, "trajectory_diff", lambda config, fields: []),
            mock.patch.object(settled, "trajectory_digest", lambda config: self._digest),
            mock.patch.object(RunConfig, "to_dict", lambda config: self._raw),
            mock.patch.object(publishing, "versions", lambda: self._versions),
            mock.patch.object(logging.getLogger("job.storage.retry"), "disabled", True),
        ):
            yield self

    def _draw(self, digits: int) -> str:
        self._life.drawn += 1
        return self._script.nonce + f"{self._life.drawn:0{digits - 1}x}"

    def _sleep(self, seconds: float) -> None:
        self._life.clock_seconds += seconds

    def live(self, actor: int, answers: Sequence[Any]) -> Life:
        """The actor's life up to its first operation without an answer."""
        self.lives += 1
        self._life, self._script = Life(answers), self.scripts[actor]
        self._run(FedStore(self._life), RunDir(self._path / f"actor-{actor}"))
        return self._life

    def finish(self, store: ObjectStore) -> list[Note]:
        """One more attempt, alone, with a store of its own to the end."""
        self._life, self._script = Life([]), replace(self.scripts[0], nonce="f", steps=self.scripts[0].steps[-1:])
        self._run(store, RunDir(self._path / "finisher"))
        return self._life.notes

    def _run(self, store: ObjectStore, local: RunDir) -> None:
        try:
            patient = RetryingStore(store, sleep=lambda seconds: None, clock=lambda: 0.0)
            self._attempt(patient, local, self._life.notes.append)
        except CutOff:
            pass
        except JobError as error:
            self._life.notes.append(Note("ended", type(error).__name__))
        except Exception as error:
            self._life.notes.append(Note("wrong", f"{type(error).__name__}: {error}"))
        else:
            self._life.notes.append(Note("ended", "done"))

    def _attempt(self, store: RetryingStore, local: RunDir, note: Callable[[Note], None]) -> None:
        """What `job.run` does, in its order, but for the ranks."""
        script = self._script
        if script.reads:
            self._restore(store, Owner(0, ""), local, note)
            return
        if (record := read_run(store)) is not None:
            refuse_another_run(self.config, record)
        if read_result(store) is not None:
            return
        if record is not None:
            self._read_prepared(store, record.prepared, local)
        owner = claim(
            store,
            self._raw,
            "0",
            take_over=script.take_over,
            stopped=lambda: False,
            watch_seconds=float(script.polls),
            poll_seconds=1.0,
        )
        note(Note("claimed", owner))
        code, reason = ExitCode.DONE, "done"
        try:
            beat(store, owner, 0)
            self._train(store, owner, local, note)
        except JobError as error:
            code, reason = error.exit_code, str(error)
            raise
        finally:
            if code != ExitCode.FENCED and self._life.request is None:
                with contextlib.suppress(JobError):
                    write_end(store, owner, code, reason, 0)

    def _train(self, store: RetryingStore, owner: Owner, local: RunDir, note: Callable[[Note], None]) -> None:
        script = self._script
        step, parent = self._restore(store, owner, local, note)
        inputs = Inputs(FINGERPRINT, {"model.safetensors": "d"}, "/base", "/base", chat=True)
        committer = InPlace(
            store,
            owner,
            Provenance(self._digest, FINGERPRINT, 1, "single", {}),
            parent,
            [],
            script.keep,
            lambda evaluations: None,
            lambda text: None,
            before_first=lambda: begin(self.config, store, owner, inputs, content.prepared(local, owner)),
        )
        tell = committer.acknowledged = lambda key: note(Note("committed", (owner, step_of(key))))
        crashes = script.replays
        while left := [later for later in script.steps if later > step]:
            step = left[0]
            committer.attempt(step, content.snapshot(local, owner, step))
            if crashes:
                crashes = False
                step, parent = self._restore(store, owner, local, note)
                committer.acknowledged = lambda key: None
                committer.go_on_from(parent, [])
                committer.acknowledged = tell
        if committer.last_error is not None:
            raise committer.last_error
        said: list[str] = []
        publishing.publish(self.config, store, owner, inputs, content.final(local, owner, step), committer, Said(said))
        note(Note("published", owner if said[-1].startswith("finished") else None))

    def _restore(
        self, store: RetryingStore, owner: Owner, local: RunDir, note: Callable[[Note], None]
    ) -> tuple[int, str | None]:
        note(Note("restoring"))
        said: list[str] = []
        found = restore(store, owner.attempt, local.resume, said.append)
        if said:
            note(Note("wrong", f"nothing was damaged, but: {said[0]}"))
        if found is None:
            note(Note("restored"))
            return 0, None
        key, commit = found
        texts = {file.name: (local.resume / file.name).read_text() for file in commit.files}
        by = Owner(commit.attempt, commit.nonce, COMMIT_KEY.fullmatch(key)[3] is None)
        if texts != content.snapshot_files(by, commit.step):
            note(Note("wrong", f"{key} is not what attempt {by.name} committed at step {commit.step}: {texts}"))
        note(Note("restored", (by, commit.step)))
        return commit.step, key

    def _read_prepared(self, store: RetryingStore, fingerprint: str, local: RunDir) -> None:
        """As `job.inputs` does for a run that has begun."""
        key = f"prepared/{fingerprint}.json"
        prepared = PreparedRecord.parse(store.get(key), key)
        folder = local.path / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        download_files(store, prepared.folder, prepared.files, folder)
        if len({(folder / file.name).read_text() for file in prepared.files}) != 1:
            raise DataError("the prepared rows are of two attempts")


@dataclass
class Said:
    """A listener that keeps what it is told."""

    messages: list[str]

    def message(self, text: str) -> None:
        self.messages.append(text)

    def pulling(self, description: str, done: int, total: int | None) -> None:
        pass

    def handle(self, events: list[dict[str, object]]) -> None:
        pass
