"""Several pieces of work at once; the first error, or a stop, ends the wait for all of them."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
POLL_SECONDS = 0.1


class Abandoned(Exception):
    """Raised inside work whose result nobody waits for any more."""


def in_parallel(
    work: Callable[[A, Callable[[], None]], B], items: Sequence[A], width: int, check: Callable[[], None]
) -> list[B]:
    """[work(item, check)] in the order of `items`; raises the first error of any, or what `check` raises.

    `check` runs in the calling thread. The `check` that `work` gets is to be called now and then: it raises Abandoned
    once the wait is over. The threads are daemons, because one that sleeps between two tries must not delay an exit.
    """
    over = threading.Event()
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, B | None, BaseException | None]] = queue.SimpleQueue()

    def stand() -> None:
        if over.is_set():
            raise Abandoned

    def run() -> None:
        while not over.is_set():
            try:
                number = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((number, work(items[number], stand), None))
            except BaseException as error:
                done.put((number, None, error))  # first, so that no Abandoned that follows from it comes before it
                over.set()

    for number in range(len(items)):
        todo.put(number)
    results: dict[int, B] = {}
    try:
        for _ in range(min(width, len(items))):
            threading.Thread(target=run, daemon=True).start()
        while len(results) < len(items):
            check()
            try:
                number, result, error = done.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if error is not None:
                raise error
            results[number] = result  # type: ignore[assignment]
    finally:
        over.set()
    return [results[number] for number in range(len(items))]
