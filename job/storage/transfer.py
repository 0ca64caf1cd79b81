"""Downloads that end in the right bytes or in one clear error: ranged parts, each checked, the whole verified.

Botocore signs the requests and carries them over its pool of kept connections (so certificates, proxies and renewed
credentials are the control plane's); everything about the bytes is checked here, because no client does it.
"""

import queue
import random
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.errors import StorageError
from job.storage.checksum import Crc, md5_of_file
from job.storage.disk import disk_errors, write_at
from job.storage.partial import Partial
from job.storage.s3_errors import s3_errors
from job.storage.store import Entry, Progress, Transient, Unreachable

PART_BYTES = 16 << 20
CONNECTIONS = 4
CHUNK_BYTES = 1 << 20  # read, summed and written at once: it stays in the processor's cache
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 20.0  # of one part's tries; each pause is twice the one before
FALSE_ANSWERS = 5  # a server that answers a part wrongly this often does not know better

News = int | tuple[int, Crc] | BaseException  # bytes that came or were thrown away | a part that is done | the end


class FalseAnswer(Transient):
    """An answer that does not fit its request."""


class Replaced(Transient):
    """The object is another one by now: the download has to start over."""


@dataclass(frozen=True)
class Source:
    """One object and how to get at it. `md5`: hex, of the whole content, where the store gives it."""

    client: Any
    bucket: str
    key: str  # in the bucket
    uri: str
    endpoint: str
    entry: Entry
    md5: str | None

    def fault(self, crc: Crc, path: Path) -> str | None:
        """What is wrong with the bytes at `path`; where the store knows no checksum, length and ETag have to do."""
        if self.entry.crc64nvme is not None:
            expected, found, name = self.entry.crc64nvme, crc.base64(), "CRC64NVME"
        elif self.md5 is not None:
            expected, found, name = self.md5, md5_of_file(path), "MD5"
        else:
            return None
        return None if expected == found else f"{name} {found}, where the store says {expected}"


def download(source: Source, path: Path, progress: Progress | None, give_up_after_seconds: float) -> Entry:
    """The whole object at `path`; failing parts are tried again until none came through for `give_up_after_seconds`."""
    progress = progress or (lambda count: None)
    fault = None
    for _ in range(2):
        with disk_errors(path):
            partial = Partial(path, source.entry.etag, source.entry.size, PART_BYTES)
        transfer = _Transfer(source, partial, path, give_up_after_seconds)
        try:
            progress(sum(partial.length(part) for part in partial.done))
            transfer.run(progress)
            with disk_errors(path):
                crc = partial.crc()
                fault = source.fault(crc, partial.path)
                if fault is None:
                    partial.finish()
                    return replace(source.entry, crc64nvme=crc.base64())
                partial.discard()
            progress(-source.entry.size)
        finally:
            transfer.close()
    raise StorageError(
        f"{source.uri} arrived damaged twice ({fault}); the network, a proxy or the store damages what it carries"
    )


class _Transfer:
    def __init__(self, source: Source, partial: Partial, path: Path, give_up_after_seconds: float) -> None:
        self._source, self._partial, self._path = source, partial, path
        self._give_up_after_seconds = give_up_after_seconds
        self._stop = threading.Event()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._deadline = 0.0

    def run(self, progress: Progress) -> None:
        missing = [part for part in range(self._partial.parts) if part not in self._partial.done]
        for part in missing:
            self._todo.put(part)
        self._came_through()
        for _ in range(min(CONNECTIONS, len(missing))):
            # Daemons: a stop does not wait for a connection that says nothing.
            worker = threading.Thread(target=self._work, daemon=True, name="download")
            self._workers.append(worker)
            worker.start()
        while len(self._partial.done) < self._partial.parts:
            try:
                news = self._news.get(timeout=0.2)
            except queue.Empty:
                progress(0)
                continue
            if isinstance(news, BaseException):
                raise news
            if isinstance(news, int):
                progress(news)
            else:
                self._came_through()
                with disk_errors(self._path):
                    self._partial.note(*news)

    def close(self) -> None:
        """Ends the workers. While one hangs in a connection the file stays open: nothing else may get its number."""
        self._stop.set()
        until = time.monotonic() + 1.0
        for worker in self._workers:
            worker.join(timeout=max(0.0, until - time.monotonic()))
        if not any(worker.is_alive() for worker in self._workers):
            self._partial.close()

    def _came_through(self) -> None:
        self._deadline = time.monotonic() + self._give_up_after_seconds

    def _work(self) -> None:
        buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            while not self._stop.is_set():
                part = self._todo.get_nowait()
                self._news.put((part, self._fetch(part, buffer)))
        except queue.Empty:
            pass
        except BaseException as error:
            self._news.put(error)

    def _fetch(self, part: int, buffer: memoryview) -> Crc:
        tries = false_answers = 0
        while True:
            crc = Crc()
            try:
                self._read(part, buffer, crc)
                return crc
            except Replaced:
                raise
            except Transient as error:
                tries += 1
                false_answers += isinstance(error, FalseAnswer)
                self._news.put(-crc.size)
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(tries - 1, 8))
                pause *= random.uniform(0.5, 1.0)
                late = time.monotonic() + pause > self._deadline
                if late or false_answers >= FALSE_ANSWERS or self._stop.is_set():
                    why = f"gave up after {tries} tries" + (f" in {self._give_up_after_seconds:.0f} s" if late else "")
                    raise StorageError(f"{error} ({why})") from error
                self._stop.wait(pause)

    def _read(self, part: int, buffer: memoryview, crc: Crc) -> None:
        """One part into its place; `crc` counts what came."""
        first, length = part * self._partial.part_bytes, self._partial.length(part)
        source = self._source
        with s3_errors("read", source.uri, source.bucket, source.endpoint):
            body = _opened(source, first, length)
            try:
                while crc.size < length:
                    got = body.readinto(buffer[: length - crc.size])
                    if not got:
                        raise Unreachable(f"read {source.uri}: the connection ended {length - crc.size} bytes early")
                    crc.update(buffer[:got])
                    with disk_errors(self._path):
                        write_at(self._partial.file.fileno(), buffer[:got], first + crc.size - got)
                    self._news.put(got)
                    if self._stop.is_set() or time.monotonic() > self._deadline:
                        raise Unreachable(f"read {source.uri}: {source.endpoint} sends too slowly")
                body.read()  # nothing, but it gives the connection back to the pool
            finally:
                body.close()


def _opened(source: Source, first: int, length: int) -> Any:
    """The body of an answer that fits the request: status, range, length and ETag."""
    whole = length == source.entry.size
    asked = {} if whole else {"Range": f"bytes={first}-{first + length - 1}"}
    answer = source.client.get_object(Bucket=source.bucket, Key=source.key, **asked)
    meta = answer["ResponseMetadata"]
    headers = meta["HTTPHeaders"]
    wanted_range = None if whole else f"bytes {first}-{first + length - 1}/{source.entry.size}"
    etag = headers.get("etag")
    if etag is not None and etag != source.entry.etag:
        answer["Body"].close()
        raise Replaced(f"{source.uri} was replaced while it was read (etag {source.entry.etag}, now {etag})")
    checks: list[tuple[str, object, object]] = [
        ("ETag", etag, source.entry.etag),
        ("status", meta["HTTPStatusCode"], 200 if whole else 206),
        ("Content-Length", headers.get("content-length"), str(length)),
        ("Content-Range", headers.get("content-range"), wanted_range),
    ]
    for name, found, wanted in checks:
        if found != wanted:
            answer["Body"].close()
            raise FalseAnswer(f"read {source.uri}: {source.endpoint} answered {name} {found}, where {wanted} was due")
    return answer["Body"]
