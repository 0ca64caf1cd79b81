"""Attempts of this and of other machines, and claims that do not wait longer than a test."""

import threading
import time
from collections.abc import Callable
from typing import Any

from job.storage.attempts import Owner, claim
from job.storage.records import AttemptRecord
from job.storage.store import ObjectStore

NEVER = 3600.0  # a watch of this length would run into a test's time-out


def take(store: ObjectStore, watch_seconds: float = NEVER, take_over: bool = False) -> Owner:
    return claim(
        store,
        {},
        "0",
        take_over=take_over,
        stopped=lambda: False,
        watch_seconds=watch_seconds,
        poll_seconds=0.02,
    )


def record(store: ObjectStore, number: int = 1, **fields: Any) -> Owner:
    """An attempt of another machine, unless `fields` say something else."""
    owner = Owner(number, "0" * 12)
    of_elsewhere = {"boot": "another", "pids": "pid:[1]", "pid": 4711, "started": "1"}
    values = {"host": "node7", "process": of_elsewhere, "scheduler": {}, "created": "", "version": "0", "config": {}}
    made = AttemptRecord.model_validate({"attempt": number, "nonce": owner.nonce, **values, **fields})
    assert store.put_if_absent(owner.key, made.dump())
    return owner


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == count
    return results


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
