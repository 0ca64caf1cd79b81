"""A store's state as a value: one operation of one actor leads from it to the next, in every way it may turn out.

The state is never changed, so that an exploration can go on from it as often as it likes. Semantics are those of
`MemoryStore`, which passes the conformance suite; this file adds only what can go wrong on the way:

- the operation is done, its answer is lost: the caller tries again, as behind `RetryingStore`, or gives up
- the store refuses
- a listing is stale: it misses the last changes that others made in that folder since one's own last change there.
  That is what NFS clients do: a change of one's own tells the client that what it remembers of the folder is old.

Heartbeats, end records and probes are left out of listings: no reader of a listing looks at them, and two states that
differ in nothing else need not be gone on from twice.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from job.errors import StorageError
from job.storage.memory import MemoryStore
from job.storage.store import Entry, NotFound, Transient

LOST, GAVE_UP, REFUSED = "lost", "gave up", "refused"
FAULTS = (LOST, GAVE_UP, REFUSED)
UNREAD = re.compile(r"attempts/(probe|.*-(beat|end)\.json)|commits/probe")
LAGGING = ("attempts", "commits", "damaged")  # listings of checkpoints/ decide only which files without use go
CHANGING = ("put", "put_if_absent", "delete", "upload")


@dataclass(frozen=True)
class Request:
    """An operation that an actor is about to do; uploads carry the file's bytes."""

    operation: str
    key: str
    data: bytes = b""


@dataclass(frozen=True)
class Missing:
    """The answer where there is no such object."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The answer that is none."""

    kind: str

    def error(self, key: str) -> Exception:
        if self.kind == LOST:
            return Transient(f"{key}: the answer was lost")
        return StorageError(f"{key}: {'the answer was lost, again and again' if self.kind == GAVE_UP else 'refused'}")


@dataclass(frozen=True)
class Change:
    """Of a folder's listing. `seen`: the actors whose next listing has it, whatever their client remembers."""

    key: str
    before: bytes | None
    seen: frozenset[int]


@dataclass(frozen=True)
class Rules:
    """What may happen in a world of so many `actors`. `lag`: so many changes of others a listing may miss."""

    actors: int = 2
    conditional: bool = True
    lag: int = 0


@dataclass(frozen=True, eq=False)
class World:
    store: MemoryStore
    digest: int  # of all keys and contents
    recent: tuple[tuple[str, tuple[Change, ...]], ...] = ()  # folder -> last changes some actor may miss, oldest first

    @staticmethod
    def empty(rules: Rules) -> "World":
        return World(MemoryStore("run", conditional=rules.conditional), 0)

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.digest, self.recent)


@dataclass(frozen=True)
class Outcome:
    """How an operation turned out: `name` is "" for the usual way."""

    name: str
    answer: Any
    world: World


def outcomes(world: World, actor: int, request: Request, rules: Rules, faults: bool) -> Iterator[Outcome]:
    """The usual one first; with `faults` also those with a fault."""
    after, answer = _done(world, actor, request, rules)
    yield Outcome("", answer, after)
    if request.operation == "list":
        for missed in range(1, rules.lag + 1):
            stale = _as_before(world, actor, request.key, missed)
            if stale is None:
                break
            listing = _listing(stale, request.key)
            if listing != answer:
                yield Outcome(f"stale{missed}", listing, world)
    if faults:
        if request.operation in CHANGING:  # a lost answer to a question changes nothing
            yield Outcome(LOST, Failed(LOST), after)
            yield Outcome(GAVE_UP, Failed(GAVE_UP), after)
        yield Outcome(REFUSED, Failed(REFUSED), world)


def _done(world: World, actor: int, request: Request, rules: Rules) -> tuple[World, Any]:
    operation, key = request.operation, request.key
    if operation not in CHANGING:
        return world, _read(world.store, operation, key)
    before = _content(world.store, key)
    store = world.store.copy()
    answer = None
    if operation == "put_if_absent":
        answer = store.put_if_absent(key, request.data)
    elif operation == "delete":
        store.delete([key])
    else:
        store.put(key, request.data)
    now = _content(store, key)
    if now == before:
        return world, answer
    digest = world.digest ^ _mark(key, before) ^ _mark(key, now)
    return World(store, digest, _remembered(world, actor, key, before, rules) if rules.lag else ()), answer


def _read(store: MemoryStore, operation: str, key: str) -> Any:
    try:
        if operation == "list":
            return _listing(store, key)
        if operation == "stat":
            return store.stat(key)
        return store.get(key)  # "get" and "download"
    except NotFound as missing:
        return Missing(str(missing))


def _content(store: MemoryStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except NotFound:
        return None


@lru_cache(maxsize=1 << 16)
def _mark(key: str, data: bytes | None) -> int:
    if data is None:
        return 0
    return int.from_bytes(hashlib.blake2b(key.encode() + b"\0" + data, digest_size=16).digest(), "big")


def folder(key: str) -> str:
    return key.partition("/")[0]


def _listing(store: MemoryStore, prefix: str) -> tuple[Entry, ...]:
    return tuple(entry for entry in store.list(prefix) if not UNREAD.fullmatch(entry.key))


def _remembered(
    world: World, actor: int, key: str, before: bytes | None, rules: Rules
) -> tuple[tuple[str, tuple[Change, ...]], ...]:
    """A change of one's own shows all earlier ones of the folder."""
    by_folder = dict(world.recent)
    place = folder(key)
    if place not in LAGGING:
        return world.recent
    changes = [replace(change, seen=change.seen | {actor}) for change in by_folder.get(place, ())]
    if not UNREAD.fullmatch(key):
        changes.append(Change(key, before, frozenset({actor})))
    by_folder[place] = tuple(change for change in changes if len(change.seen) < rules.actors)[-rules.lag :]
    return tuple(sorted((place, changes) for place, changes in by_folder.items() if changes))


def _as_before(world: World, actor: int, prefix: str, missed: int) -> MemoryStore | None:
    """The store as it was before the last `missed` changes in that folder; None where the actor saw one of them."""
    last = dict(world.recent).get(folder(prefix), ())[-missed:]
    if len(last) < missed or any(actor in change.seen for change in last):
        return None
    store = world.store.copy()
    for change in reversed(last):
        if change.before is None:
            store.delete([change.key])
        else:
            store.put(change.key, change.before)
    return store
