"""Forked workers take items and give results in the items' order; none of them outlives its parent by a moment."""

import gc
import multiprocessing
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from job.errors import JobError, RankCrashed
from job.training.process import die_with

POLL_SECONDS = 0.2
AHEAD = 2  # items that wait, ready to be sent, for a worker to become free
WINDOW = 4  # items under way for each worker: what one slow item can have the others pile up
PROTOCOL = 5  # the first that hands over arrays without taking them apart

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, poll: Callable[[], None]
) -> Generator[Result, None, None]:
    """`work(item)` of each item, in order; with fewer than 2 workers in this process, else in forked ones.

    `poll` is called several times a second, and may raise to end it all. What `work` raises is raised here, at its
    item's turn; so is what `items` raises. Close the iterator to end the workers. Raises: RankCrashed when one died.
    """
    if workers < 2:
        for item in items:
            poll()
            yield work(item)
        return
    crew: list[_Worker] = []
    gc.freeze()  # a collection in a worker would copy every page that holds an object of the parent's
    try:
        crew += (_Worker(work) for _ in range(workers))
        yield from _Exchange[Item, Result](crew, items, poll).results()
    finally:
        gc.unfreeze()
        for worker in crew:
            worker.end()


class _Exchange(Generic[Item, Result]):
    """Gives items to whoever is free, and keeps the results until it is their turn."""

    def __init__(self, crew: "list[_Worker]", items: Iterable[Item], poll: Callable[[], None]) -> None:
        self._items, self._poll = iter(items), poll
        self._window = WINDOW * len(crew)
        self._free = deque(crew)
        self._busy: dict[Connection, tuple[_Worker, int]] = {}
        self._ahead: deque[bytes] = deque()
        self._results: dict[int, Result | Exception] = {}
        self._sent = self._given = 0
        self._over = False
        self._failure: Exception | None = None  # of the items, raised when all before it is given

    def results(self) -> Iterator[Result]:
        while True:
            self._poll()
            self._send()
            is_read = self._read_ahead()
            if self._over and not self._ahead and self._given == self._sent:
                break
            self._receive(0 if is_read or self._given in self._results else POLL_SECONDS)
            if self._given in self._results:
                result = self._results.pop(self._given)
                self._given += 1
                if isinstance(result, Exception):
                    raise result
                self._send()  # nobody waits while the result is used
                yield result
        if self._failure is not None:
            raise self._failure

    def _read_ahead(self) -> bool:
        if self._over or len(self._ahead) >= AHEAD or self._sent + len(self._ahead) - self._given >= self._window:
            return False
        try:
            self._ahead.append(pickle.dumps(next(self._items), PROTOCOL))
        except StopIteration:
            self._over = True
        except Exception as error:
            self._over, self._failure = True, error
        return True

    def _send(self) -> None:
        while self._ahead and self._free:
            worker = self._free.popleft()
            worker.send(self._ahead.popleft())
            self._busy[worker.connection] = (worker, self._sent)
            self._sent += 1

    def _receive(self, timeout_seconds: float) -> None:
        for connection in wait(list(self._busy), timeout_seconds):
            assert isinstance(connection, Connection)
            worker, number = self._busy.pop(connection)
            self._results[number] = worker.receive()
            self._free.append(worker)


class _Worker:
    """One forked process. It is sent an item only when it waits for one: neither ever waits for the other to read."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=_serve, args=(work, theirs, os.getpid()), daemon=True)
        self._process.start()
        theirs.close()  # so that its death is the end of what can be read

    def send(self, item: bytes) -> None:
        try:
            self.connection.send_bytes(item)
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Any:
        try:
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._death() from error

    def end(self) -> None:
        self._process.kill()  # it holds nothing that would have to be put away
        self._process.join()
        self._process.close()
        self.connection.close()

    def _death(self) -> RankCrashed:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with code {code}"
        hint = ", as the system does where memory runs out; ask for more" if code == -signal.SIGKILL else ""
        return RankCrashed(f"a process that prepares data {how}{hint}")


def _serve(work: Callable[[Any], Any], connection: Connection, parent: int) -> None:
    die_with(parent)
    while True:
        result: Any
        try:
            item = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            result = work(item)
        except JobError as error:
            result = error
        except Exception as error:
            traceback.print_exc()
            result = RankCrashed(f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}")
        connection.send_bytes(pickle.dumps(result, PROTOCOL))
