"""Who runs a run: one attempt at a time, claimed by put-if-absent of the next number; a newer one fences the older."""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from job.errors import Busy, DataError, Fenced, Stopped
from job.machine import node_name
from job.storage import identity
from job.storage.records import ATTEMPT_KEY, AttemptRecord, BeatRecord, EndRecord
from job.storage.store import NotFound, ObjectStore

PROBE = "attempts/probe"
BEAT_SECONDS = 5.0
WATCH_SECONDS = 30.0


@dataclass(frozen=True, order=True)
class Owner:
    """An attempt's place in the order of attempts, and the keys only it writes."""

    attempt: int
    nonce: str
    conditional: bool = True  # the store has put-if-absent, so the number alone is unique

    @property
    def name(self) -> str:
        return f"{self.attempt:04d}" if self.conditional else f"{self.attempt:04d}-{self.nonce}"

    @property
    def key(self) -> str:
        return f"attempts/{self.name}.json"

    @property
    def end_key(self) -> str:
        return f"attempts/{self.name}-end.json"

    @property
    def beat_key(self) -> str:
        return f"attempts/{self.name}-beat.json"

    def commit_key(self, step: int) -> str:
        suffix = "" if self.conditional else f"-{self.nonce}"
        return f"commits/{self.attempt:04d}-{step:08d}{suffix}.json"


def attempts(store: ObjectStore) -> list[Owner]:
    """All claims, oldest first. Without put-if-absent two may share a number: then the nonce orders them."""
    found = (ATTEMPT_KEY.fullmatch(entry.key) for entry in store.list("attempts/"))
    return sorted(Owner(int(match[1]), match[2] or "", match[2] is None) for match in found if match)


def has_conditional_put(store: ObjectStore) -> bool:
    """Some stores overwrite silently where they should refuse (rclone, s3rver): try it.

    Always under the same key, so that nothing has to be deleted: not everyone who may write may do that.
    """
    overwrote = all(store.put_if_absent(PROBE, secrets.token_bytes(8)) for _ in range(2))
    return store.conditional and not overwrote  # others refuse the header, and their store object has learned it


def ensure_idle(
    store: ObjectStore,
    stopped: Callable[[], bool],
    watch_seconds: float = WATCH_SECONDS,
    poll_seconds: float = 1.0,
    known: Owner | None = None,
) -> Owner | None:
    """Return the newest attempt when nobody runs this run any more; None where there was never one.

    Idle: the newest attempt wrote its end, was a process of this host that is gone, or is of the same scheduler job
    (unless its process is still there: two commands in one allocation); else its heartbeat must stand still for
    `watch_seconds`. No clocks are compared. `known`: an attempt that exists, whether the listing has it yet or not.
    Raises: Busy naming host and job, Stopped when asked to stop meanwhile.
    """
    last = max([*attempts(store), *([known] if known else [])], default=None)
    if last is None or _ended(store, last):
        return last
    try:
        record = AttemptRecord.parse(store.get(last.key), f"{store.uri}/{last.key}")
    except DataError:  # nothing says who it is; its heartbeat still does
        record = None
    if record is not None and identity.gone(record):
        return last
    seen = _beat(store, last)
    deadline = time.monotonic() + watch_seconds
    while time.monotonic() < deadline:
        if stopped():
            raise Stopped("stopped while watching the heartbeat of the attempt before")
        if _beat(store, last) != seen:
            raise Busy(
                f"{store.uri} is being run by attempt {last.attempt} on {identity.whose(record)}; "
                "stop that job first, or insist with --take-over"
            )
        time.sleep(min(poll_seconds, watch_seconds))
    return last


def _ended(store: ObjectStore, owner: Owner) -> bool:
    try:
        store.get(owner.end_key)
    except NotFound:
        return False
    return True


def _beat(store: ObjectStore, owner: Owner) -> bytes:
    try:
        return store.get(owner.beat_key)
    except NotFound:
        return b""


def claim(
    store: ObjectStore,
    config: dict[str, Any],
    version: str,
    *,
    take_over: bool,
    stopped: Callable[[], bool],
    over: Owner | None = None,
    watch_seconds: float = WATCH_SECONDS,
    poll_seconds: float = 1.0,
) -> Owner:
    """Take the number after that of the attempt that was seen to be over. Taken meanwhile: look at its owner first.

    `over`: what an earlier `ensure_idle` returned; while it is still the newest it is not watched again.
    Raises: Busy unless `take_over`; Stopped.
    """
    nonce, conditional = secrets.token_hex(6), has_conditional_put(store)
    taken: Owner | None = None  # by somebody; a shared filesystem's listing may lag behind
    while True:
        newest = max([*attempts(store), *([taken] if taken else [])], default=None)
        if take_over or newest == over:
            before = newest
        else:
            before = ensure_idle(store, stopped, watch_seconds, poll_seconds, taken)
        number = before.attempt + 1 if before else 1
        owner = Owner(number, nonce, conditional)
        record = AttemptRecord(
            attempt=number,
            nonce=nonce,
            host=node_name(),
            process=identity.this_process(),
            scheduler=identity.scheduler_ids(os.environ),
            created=now(),
            version=version,
            config=config,
        )
        if store.put_if_absent(owner.key, record.dump()):
            return owner
        taken = Owner(number, "")


def check_fence(store: ObjectStore, owner: Owner) -> None:
    """Raises: Fenced when a newer attempt owns the run."""
    newest = attempts(store)[-1:]
    if newest and (newest[0].attempt, newest[0].nonce) > (owner.attempt, owner.nonce if not owner.conditional else ""):
        raise Fenced(
            f"attempt {newest[0].attempt} took over {store.uri}; this one, {owner.attempt}, leaves without writing more"
        )


def beat(store: ObjectStore, owner: Owner, count: int, stepped: bool = False, seconds: float = 0.0) -> None:
    record = BeatRecord(count=count, stepped=stepped, seconds=round(seconds, 1), time=now())
    store.put(owner.beat_key, record.dump())


def write_end(
    store: ObjectStore,
    owner: Owner,
    code: int,
    reason: str,
    step: int,
    stepped: bool = False,
    seconds: float = 0.0,
) -> None:
    record = EndRecord(code=code, reason=reason, step=step, created=now(), stepped=stepped, seconds=round(seconds, 1))
    store.put(owner.end_key, record.dump())


def now() -> str:
    """For people only: nothing compares clocks."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
