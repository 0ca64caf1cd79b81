"""Who runs a run: one attempt at a time, claimed by put-if-absent of the next number; a newer one fences the older."""

import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import Busy, Fenced, Stopped
from job.storage.records import ATTEMPT_KEY, AttemptRecord, EndRecord
from job.storage.store import NotFound, ObjectStore

BEAT_SECONDS = 5.0
WATCH_SECONDS = 30.0
SCHEDULER_VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SFT_JOB_KUBERNETES_JOB",
    "AWS_BATCH_JOB_ID",
)


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


def this_process() -> dict[str, Any]:
    """What tells this process from any other of this or another machine."""
    return {"boot": _read("/proc/sys/kernel/random/boot_id"), "pids": _pid_namespace(), **_process(os.getpid())}


def _process(pid: int) -> dict[str, Any]:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # from the third on, proc(5)
    gone = not fields or fields[0] in "ZX"  # a zombie runs nothing; in a container perhaps nobody reaps it
    return {"pid": pid, "started": "" if gone else fields[19]}


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def scheduler_ids(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in SCHEDULER_VARIABLES if environment.get(name)}


def has_conditional_put(store: ObjectStore) -> bool:
    """Some stores overwrite silently where they should refuse (rclone, s3rver): try it."""
    key = f"attempts/probe-{secrets.token_hex(6)}"
    try:
        return store.put_if_absent(key, b"first") and not store.put_if_absent(key, b"second")
    finally:
        store.delete([key])


def ensure_idle(
    store: ObjectStore, stopped: Callable[[], bool], watch_seconds: float = WATCH_SECONDS, poll_seconds: float = 1.0
) -> None:
    """Return when nobody runs this run.

    Idle: the newest attempt wrote its end, is of the same scheduler job, or was a process of this host that is gone;
    else its heartbeat must stand still for `watch_seconds`. No clocks are compared.
    Raises: Busy naming host and job, Stopped when asked to stop meanwhile.
    """
    claims = attempts(store)
    if not claims:
        return
    last = claims[-1]
    try:
        store.get(last.end_key)
        return
    except NotFound:
        pass
    record = AttemptRecord.parse(store.get(last.key), f"{store.uri}/{last.key}")
    ids = scheduler_ids(os.environ)
    if ids and ids == record.scheduler:
        return
    here = this_process()
    same_machine = record.process.get("boot") == here["boot"] != "" and record.process.get("pids") == here["pids"]
    if same_machine and _process(int(record.process["pid"]))["started"] != record.process["started"]:
        return
    seen = _beat(store, last)
    deadline = time.monotonic() + watch_seconds
    while time.monotonic() < deadline:
        if stopped():
            raise Stopped("stopped while watching the heartbeat of the attempt before")
        if _beat(store, last) != seen:
            job = (
                ", ".join(f"{name}={value}" for name, value in record.scheduler.items())
                or f"pid {record.process['pid']}"
            )
            raise Busy(
                f"{store.uri} is being run by attempt {last.attempt} on {record.host} ({job}); "
                "stop that job first, or insist with --take-over"
            )
        time.sleep(poll_seconds)


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
    watch_seconds: float = WATCH_SECONDS,
) -> Owner:
    """Take the next number. Taken by somebody else meanwhile: check busy again, then try the next.

    Raises: Busy unless `take_over`; Stopped.
    """
    nonce, conditional = secrets.token_hex(6), has_conditional_put(store)
    floor = 0  # a shared filesystem's listing may lag behind a number that is already taken
    while True:
        if not take_over:
            ensure_idle(store, stopped, watch_seconds)
        claims = attempts(store)
        number = max(claims[-1].attempt if claims else 0, floor) + 1
        owner = Owner(number, nonce, conditional)
        record = AttemptRecord(
            attempt=number,
            nonce=nonce,
            host=socket.gethostname(),
            process=this_process(),
            scheduler=scheduler_ids(os.environ),
            created=now(),
            version=version,
            config=config,
        )
        if store.put_if_absent(owner.key, record.dump()):
            return owner
        floor = number


def check_fence(store: ObjectStore, owner: Owner) -> None:
    """Raises: Fenced when a newer attempt owns the run."""
    newest = attempts(store)[-1:]
    if newest and (newest[0].attempt, newest[0].nonce) > (owner.attempt, owner.nonce if not owner.conditional else ""):
        raise Fenced(
            f"attempt {newest[0].attempt} took over {store.uri}; this one, {owner.attempt}, leaves without writing more"
        )


def beat(store: ObjectStore, owner: Owner, count: int) -> None:
    store.put(owner.beat_key, json.dumps({"count": count, "time": now()}).encode())


def write_end(store: ObjectStore, owner: Owner, code: int, reason: str, step: int) -> None:
    store.put(owner.end_key, EndRecord(code=code, reason=reason, step=step, created=now()).dump())


def now() -> str:
    """For people only: nothing compares clocks."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
