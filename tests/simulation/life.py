"""An actor as a function of the answers it got: cut off at the first operation that has none yet.

So nothing of an actor has to be kept or copied: wherever an exploration goes back to, the actor is run from its
beginning and handed those answers one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.storage.store import Entry, NotFound, Progress
from tests.simulation.world import Failed, Missing, Request


class CutOff(BaseException):
    """The operation that was asked for has no answer yet; nothing may catch it."""


@dataclass(frozen=True)
class Script:
    """What an actor is started for. `nonce`: the first digit of its nonces, which order claims of one number."""

    nonce: str
    steps: tuple[int, ...] = (1, 3)  # that it commits, as far as they are not done; the last is the run's
    keep: int = 1
    take_over: bool = True
    polls: int = 0  # looks at a predecessor's heartbeat, where it does not insist
    replays: bool = False  # its ranks crash after the first commit; it goes on in place from what restore() finds
    reads: bool = False  # it claims nothing, and only brings the newest commit to itself


@dataclass(frozen=True)
class Note:
    """What an actor would say for certain: an acknowledgement it got, or how it ended."""

    kind: str
    value: Any = None


@dataclass
class Life:
    """One run of an actor on the answers so far."""

    answers: Sequence[Any]
    notes: list[Note] = field(default_factory=list)
    request: Request | None = None  # that has no answer yet; None: the actor has ended
    drawn: int = 0
    clock_seconds: float = 0.0
    _at: int = 0

    def ask(self, request: Request) -> Any:
        if self.request is not None or self._at == len(self.answers):
            self.request = self.request or request
            raise CutOff
        answer = self.answers[self._at]
        self._at += 1
        if isinstance(answer, Missing):
            raise NotFound(answer.message)
        if isinstance(answer, Failed):
            raise answer.error(request.key)
        return answer


class FedStore:
    """Answers from a list; like every store it gets its patience from `RetryingStore`."""

    uri = "memory://run"
    conditional = True

    def __init__(self, life: Life) -> None:
        self._life = life

    def get(self, key: str) -> bytes:
        return self._life.ask(Request("get", key))

    def put(self, key: str, data: bytes) -> None:
        self._life.ask(Request("put", key, bytes(data)))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._life.ask(Request("put_if_absent", key, bytes(data)))

    def stat(self, key: str) -> Entry:
        return self._life.ask(Request("stat", key))

    def list(self, prefix: str) -> list[Entry]:
        return list(self._life.ask(Request("list", prefix)))

    def delete(self, keys: Sequence[str]) -> None:
        """One by one: a store's own deletion of many is not atomic."""
        for key in keys:
            self._life.ask(Request("delete", key))

    def download(self, key: str, path: Path, progress: Progress | None = None, expect: Entry | None = None) -> Entry:
        data = self._life.ask(Request("download", key))
        path.write_bytes(data)
        return Entry(key, len(data), "")

    def upload(self, path: Path, key: str, progress: Progress | None = None) -> None:
        self._life.ask(Request("upload", key, path.read_bytes()))

    def local_path(self, key: str) -> Path | None:
        return None
