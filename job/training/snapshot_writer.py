"""Takes snapshots and writes them on a thread: one is written at a time, and the newest of those that wait wins.

The training loop waits for the copy into a host buffer, and for a buffer: there are two where memory allows, so that a
snapshot can be taken while the one before is still being written.
"""

import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from job.errors import HardwareError
from job.host_memory import available_bytes
from job.rundir import RunDir
from job.training.buffers import HostBuffer
from job.training.capture import Capturing
from job.training.packed import Kinds
from job.training.snapshot import Snapshot, write

BUFFERS = 2
ROOM = 2  # a second buffer is made where memory is left for this many of it
Evaluations = list[dict[str, Any]]


@dataclass(frozen=True)
class _Waits:
    snapshot: Snapshot
    needed: bool
    buffer: HostBuffer


class SnapshotWriter:
    """`written(step, seconds)` is called on the thread after each snapshot, `getting_on` there after each block."""

    def __init__(
        self,
        run: RunDir,
        written: Callable[[int, float], None],
        getting_on: Callable[[], object] = lambda: None,
        buffers: int = BUFFERS,
    ) -> None:
        self._run, self._written, self._getting_on, self._most_buffers = run, written, getting_on, buffers
        self._capturer: Capturing | None = None
        self._buffers: list[HostBuffer] = []
        self._free: list[HostBuffer] = []
        self._waiting: list[_Waits] = []
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._busy = self._preparing = False
        threading.Thread(target=self._work, daemon=True, name="snapshot-writer").start()

    def begin(self, capturer: Capturing) -> None:
        """Who takes the snapshots. After the first step, when their size is known, a buffer is made beside the
        training, so that the first snapshot is as quick as the others."""
        self._capturer = capturer
        capturer.after_a_step(self._prepare)

    def take(self, step: int, evaluations: Evaluations, needed: bool = False, hooks: Any = None) -> None:
        """Copy, and have it written. `hooks`: the state of the user's own code.

        `needed`: it is the best so far; its trainable tensors also become the run's best, and only a newer needed one
        replaces it while it waits.

        Raises what an earlier write raised: a full disk ends the run with its cause.
        """
        assert self._capturer is not None, "begin comes first"
        buffer = self._buffer(needed)
        snapshot = replace(self._capturer.capture(step, evaluations, buffer), hooks=hooks)
        with self._changed:
            self._waiting.append(_Waits(snapshot, needed, buffer))
            self._changed.notify_all()

    def rehearse(self) -> None:
        """Copy what a snapshot copies, and look whether the disk has room for two; nothing is written.

        Raises: HardwareError when it has not, or the host's memory has none for one.
        """
        assert self._capturer is not None, "begin comes first"
        needed = sum(prod(shape) * dtype.itemsize for kinds in self._capturer.kinds() for _, dtype, shape in kinds)
        if not self._buffers and 0 < (left := available_bytes()) < needed:
            raise HardwareError(
                f"a snapshot takes {needed / 1e9:.1f} GB of the host's memory, and {left / 1e9:.1f} GB are left; ask "
                "the scheduler for more"
            )
        buffer = self._buffer(needed=False)
        self._capturer.capture(0, [], buffer).copied()
        with self._changed:
            self._free.append(buffer)
        free = shutil.disk_usage(self._run.snapshots).free
        if free < BUFFERS * buffer.size_bytes:
            raise HardwareError(
                f"two snapshots take {BUFFERS * buffer.size_bytes / 1e9:.1f} GB and {self._run.snapshots} has "
                f"{free / 1e9:.1f} GB free; free some, or set SFT_JOB_HOME"
            )

    def wait(self) -> None:
        """Until everything taken is on disk. Raises as `take`."""
        with self._changed:
            self._changed.wait_for(lambda: (not self._waiting and not self._busy) or self._error is not None)
            self._raise_error()

    # ---- buffers

    def _prepare(self, *_: object) -> None:
        with self._changed:
            if self._buffers:
                return
            buffer, self._preparing = self._another_buffer(), True
        assert self._capturer is not None
        sizes = self._capturer.kinds()
        threading.Thread(target=self._make, args=(buffer, sizes), daemon=True, name="snapshot-buffer").start()

    def _make(self, buffer: HostBuffer, sizes: tuple[Kinds, Kinds]) -> None:
        try:
            buffer.fit(*sizes)
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._preparing = False
                self._changed.notify_all()

    def _buffer(self, needed: bool) -> HostBuffer:
        with self._changed:
            self._drop_older(needed)
            self._changed.wait_for(lambda: not self._preparing)
            if not self._free and self._has_room():
                self._another_buffer()
            self._changed.wait_for(lambda: bool(self._free) or self._error is not None)
            self._raise_error()
            return self._free.pop()

    def _has_room(self) -> bool:
        made = len(self._buffers)
        return made == 0 or (made < self._most_buffers and available_bytes() >= ROOM * self._buffers[0].size_bytes)

    def _another_buffer(self) -> HostBuffer:
        assert self._capturer is not None
        buffer = HostBuffer(self._capturer.gpu)
        self._buffers.append(buffer)
        self._free.append(buffer)
        return buffer

    # ---- the queue

    def _drop_older(self, needed: bool) -> None:
        older, self._waiting = self._waiting, []
        for waits in older:
            if waits.needed and not needed:
                self._waiting.append(waits)
            else:
                self._give_back(waits)

    def _give_back(self, waits: _Waits) -> None:
        waits.snapshot.copied()
        self._free.append(waits.buffer)

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                waits, self._busy = self._waiting.pop(0), True
            begun = time.monotonic()
            try:
                self._write(waits)
                self._written(waits.snapshot.step, time.monotonic() - begun)
                with self._changed:
                    self._give_back(waits)
            except BaseException as error:
                self._error = error
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _write(self, waits: _Waits) -> None:
        """The best first: a commit never names a best that is not there."""
        snapshot = waits.snapshot
        snapshot.copied()
        if waits.needed:
            write(Snapshot(snapshot.step, snapshot.trainable, {}, []), self._run.best, self._getting_on)
        write(snapshot, self._run.snapshot(snapshot.step), self._getting_on)
