"""Ask, make room, download under the blob's lock, link: what a source holds is pulled once per node and then shared.

What `sft-job pull` put into SFT_JOB_CACHE is read in place: it may lie on a filesystem that many nodes share, and need
not be writable here.
"""

import contextlib
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from job.errors import ConfigError, HardwareError
from job.machine import HOME, home
from job.rundir import write_atomically
from job.storage.blobs import Blob, make_folder, share
from job.storage.cache_folder import Answer, CacheFolder
from job.storage.store import Entry

PULLED = "SFT_JOB_CACHE"
DEFAULT_SHARE = 0.8  # of the file system, where SFT_JOB_CACHE_GB says nothing
MARGIN_BYTES = 256 << 20  # left free for everything else that writes there
FULL = {errno.ENOSPC, errno.EDQUOT}


class Download(Protocol):
    """Write the whole, verified object to `path`, or go on with the partial file beside it."""

    def __call__(self, path: Path) -> object: ...


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def limit_from_environment(folder: Path) -> int:
    """`SFT_JOB_CACHE_GB` in bytes, else a share of the file system. Raises ConfigError."""
    given = os.environ.get("SFT_JOB_CACHE_GB")
    if not given:
        return int(shutil.disk_usage(folder).total * DEFAULT_SHARE)
    try:
        limit = int(float(given) * 1e9)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise ConfigError(f"SFT_JOB_CACHE_GB must be a number of gigabytes above 0, not {given!r}")
    return limit


def pulled_folder() -> Path | None:
    """Where `sft-job pull` puts everything, instead of this machine's own cache: SFT_JOB_CACHE."""
    told = os.environ.get(PULLED)
    return Path(told).expanduser().absolute() if told else None


def pulled_from_environment() -> CacheFolder | None:
    """A node without network would ask every source in vain.

    Raises: HardwareError where this machine has no such folder, as one whose shared filesystem is not mounted;
    ConfigError where it is no cache.
    """
    folder = pulled_folder()
    if folder is not None and not folder.exists():
        raise HardwareError(
            f"{PULLED} is {folder}, which this machine does not have: is that filesystem mounted here? "
            f"`{PULLED}={folder} sft-job pull RUN.yaml` makes it"
        )
    if folder is not None and not (folder / "index").is_dir():
        raise ConfigError(
            f"{PULLED} is {folder}, but nothing was pulled there; "
            f"run `{PULLED}={folder} sft-job pull RUN.yaml` where there is network, or unset it"
        )
    return None if folder is None else CacheFolder(folder)


class Cache:
    """Bounded, content-addressed, safe for any number of processes; least recently used blobs go first.

    `free` is how the free bytes of a folder are measured. Without `folder` it is this machine's, and `pulled` what
    SFT_JOB_CACHE names: only read, and looked at first. Raises HardwareError where the folder cannot be written,
    ConfigError.
    """

    _noting = threading.Lock()  # two threads of a process would write the same temporary file

    def __init__(
        self,
        folder: Path | None = None,
        limit_bytes: int | None = None,
        free: Callable[[Path], int] = free_bytes,
        pulled: CacheFolder | None = None,
    ) -> None:
        self.pulled = pulled_from_environment() if folder is None else pulled
        self.folder = (folder or home() / "cache").absolute()
        self._own = CacheFolder(self.folder)
        try:
            make_folder(self.folder / "blobs")
            make_folder(self.folder / "index")
        except OSError as error:
            variable = PULLED if self.folder == pulled_folder() else HOME
            raise HardwareError(
                f"the cache {self.folder} cannot be written ({error.strerror}); set {variable} to a writable folder"
            ) from error
        self.limit_bytes = limit_bytes or limit_from_environment(self.folder)
        self._free = free
        self._held: list[int] = []

    def blob(self, uri: str, entry: Entry) -> Blob:
        return self._own.blob(uri, entry)

    def close(self) -> None:
        """Let go of the blobs that were handed out by symlink; call when the run no longer reads them."""
        while self._held:
            os.close(self._held.pop())

    # ---- one file

    def take(
        self, uri: str, entry: Entry, path: Path, download: Download, check: Callable[[], None] = lambda: None
    ) -> None:
        """Put the blob at `path`, downloading it unless it is here whole. Raises what `download` and `check` raise."""
        if self.pulled is not None and (there := self.pulled.whole(uri, entry)) is not None:
            with contextlib.suppress(OSError):  # so that it is not the first to be evicted; it may be another's
                os.utime(there.path)
            self._hand_out_in_place(there, path)
            return
        blob = self.blob(uri, entry)
        with blob.writing(check):
            if not blob.is_whole(entry.size):
                blob.path.unlink(missing_ok=True)
                with self._full_disk_is_told(blob, entry):
                    download(blob.path)
                blob.discard_parts()
                share(blob.path)
            with contextlib.suppress(PermissionError):  # another user's file: its own times stand
                os.utime(blob.path)
            self._hand_out(blob, path)

    @contextlib.contextmanager
    def _full_disk_is_told(self, blob: Blob, entry: Entry) -> Iterator[None]:
        try:
            yield
        except (OSError, HardwareError) as error:
            if isinstance(error, OSError) and error.errno not in FULL:
                raise
            blob.discard()  # what cannot be finished here must not keep others from finishing
            raise self._no_space(entry.size) from error

    def _hand_out(self, blob: Blob, path: Path) -> None:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another file system, or links to others' files are forbidden
            os.link(blob.path, path)
            return
        try:
            self._hand_out_in_place(blob, path)
        except OSError:
            shutil.copyfile(blob.path, path)

    def _hand_out_in_place(self, blob: Blob, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(blob.path)
        with contextlib.suppress(OSError, HardwareError):  # a shared filesystem need not know locks
            self._held.append(blob.hold())

    # ---- room

    def make_room(self, wanted: Iterable[tuple[str, Entry]]) -> None:
        """Evict until what is missing of `wanted` fits, before a byte of it is pulled. Raises HardwareError."""
        own = [(uri, entry) for uri, entry in wanted if self.pulled is None or not self.pulled.whole(uri, entry)]
        blobs = {self.blob(uri, entry).folder: entry.size for uri, entry in own}
        missing = {folder: size for folder, size in blobs.items() if not Blob(folder).is_whole(size)}
        needed = sum(max(0, size - Blob(folder).allocated_bytes()) for folder, size in missing.items())
        if not needed:
            return
        others = [Blob(folder) for folder in (self.folder / "blobs").iterdir() if folder not in blobs]
        # Deleting what a run still links frees nothing on the disk, it only takes it off the cache's account: last.
        others.sort(key=lambda blob: (blob.is_linked(), blob.last_used()))
        sizes = {blob.folder: blob.allocated_bytes() for blob in others}
        total = sum(sizes.values()) + sum(Blob(folder).allocated_bytes() for folder in blobs) + needed
        for blob in others:
            short = self._free(self.folder) < needed + MARGIN_BYTES and not blob.is_linked()
            if sizes[blob.folder] and (total > self.limit_bytes or short) and blob.try_discard():
                total -= sizes[blob.folder]
        if total > self.limit_bytes:
            raise HardwareError(
                f"pulling needs {gigabytes(needed)} more in the cache {self.folder}, which is bounded to "
                f"{gigabytes(self.limit_bytes)}; raise SFT_JOB_CACHE_GB"
            )
        if self._free(self.folder) < needed + MARGIN_BYTES:
            raise self._no_space(needed)

    def _no_space(self, needed: int) -> HardwareError:
        return HardwareError(
            f"pulling needs {gigabytes(needed + MARGIN_BYTES)} free below {self.folder}, "
            f"{gigabytes(self._free(self.folder))} are; free some, or set SFT_JOB_HOME to a larger disk"
        )

    # ---- what a uri held when it was last asked

    def answer(self, uri: str) -> Answer | None:
        """What was pulled before a run, as it was then; None where that is not here, and the store has to be asked."""
        found = self.pulled.answer(uri) if self.pulled is not None else None
        if self.pulled is None or found is None or found.entry is None:
            return found
        return found if self.pulled.whole(uri, found.entry) else None

    def noted_before(self, uri: str) -> dict[str, Any] | None:
        """As `noted`, of what was pulled before a run."""
        return self.pulled.noted(uri) if self.pulled is not None else None

    def remember(self, uri: str, entry: Entry) -> None:
        """Before its download: what is known of a source must not depend on how much of it arrived."""
        self.note(uri, {"size": entry.size, "etag": entry.etag, "crc64nvme": entry.crc64nvme})

    def remember_absent(self, uri: str) -> None:
        """The store has no such object."""
        self.note(uri, {"absent": True})

    def recall(self, uri: str) -> Entry | None:
        """The entry that was last remembered of `uri`; its blob may have been evicted since."""
        found = self.answer(uri) or self._own.answer(uri)
        return found.entry if found else None

    def holds(self, uri: str, entry: Entry) -> bool:
        """Whether its blob is here whole."""
        return any(place.whole(uri, entry) for place in (self.pulled, self._own) if place is not None)

    def note(self, uri: str, fields: dict[str, Any]) -> None:
        """Keep a small record under `uri`."""
        with self._noting:
            write_atomically(self._own.index(uri), json.dumps({"uri": uri} | fields))
        share(self._own.index(uri))

    def noted(self, uri: str) -> dict[str, Any] | None:
        return self.noted_before(uri) or self._own.noted(uri)


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
