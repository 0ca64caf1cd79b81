"""The hub's own client, made patient: pinned questions, one-line errors, bytes that are checked."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from job.errors import DataError, JobError, StorageError
from job.machine import home
from job.storage.store import Entry, Unreachable

CHUNK_BYTES = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at a revision."""

    name: str
    kind: str  # model | dataset
    revision: str = "main"

    @property
    def uri(self) -> str:
        return f"hf://{'datasets/' if self.kind == 'dataset' else ''}{self.name}@{self.revision}"

    @property
    def page(self) -> str:
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def is_offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def asked(repository: Repository, give_up_after_seconds: float) -> Any:
    """The hub's answer about a repository: its commit and files with sizes and hashes."""
    if is_offline():
        raise Unreachable(f"{repository.uri}: HF_HUB_OFFLINE is set")
    os.environ.setdefault("HF_XET_CACHE", str(home() / "hf" / "xet"))  # the client's default may not be writable

    def ask() -> Any:
        with one_line_errors(repository):
            from huggingface_hub import HfApi

            return HfApi(endpoint=endpoint()).repo_info(
                repository.name,
                repo_type=repository.kind,
                revision=repository.revision,
                files_metadata=True,
                timeout=20.0,
            )

    return patiently(ask, give_up_after_seconds)


def ranged(repository: Repository, key: str, start: int, size: int) -> bytes:
    """At most `size` bytes of a file from `start` on, read over the client's own session."""
    with one_line_errors(repository):
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        url = hf_hub_url(
            repository.name, key, repo_type=repository.kind, revision=repository.revision, endpoint=endpoint()
        )
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{start + size - 1}"}
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=20.0) as answer:
            if answer.status_code == 416:  # it ends before
                return b""
            hf_raise_for_status(answer)
            skip = 0 if answer.status_code == 206 else start
            found = b""
            for piece in answer.iter_bytes():
                found += piece
                if len(found) >= skip + size:
                    break
            return found[skip : skip + size]


def patiently(call: Callable[[], T], seconds: float, alive: Callable[[int], None] = lambda more: None) -> T:
    """The result of `call`, tried again while the hub cannot be reached; `alive` is called between tries."""
    deadline, pause_seconds = time.monotonic() + seconds, 1.0
    while True:
        try:
            return call()
        except Unreachable:
            if time.monotonic() + pause_seconds > deadline:
                raise
        alive(0)
        time.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, 30.0)


@contextlib.contextmanager
def one_line_errors(repository: Repository) -> Iterator[None]:
    """The client's errors as ours: refused or missing is DataError, unreachable is StorageError."""
    try:
        yield
    except JobError:
        raise
    except Exception as error:
        raise one_line(error, repository) from error


def one_line(error: Exception, repository: Repository) -> BaseException:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return DataError(f"{repository.uri} is gated: accept the licence at {repository.page} and set HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError(f"{repository.uri}: the repository has no such revision")
    if isinstance(error, errors.RepositoryNotFoundError):
        return DataError(f"{repository.uri} is not on the hub, or is private: check the name, or set HF_TOKEN")
    if isinstance(error, errors.DisabledRepoError | errors.HFValidationError):
        return DataError(f"{repository.uri} is refused by the hub: {first_line(error)}")
    if isinstance(error, errors.EntryNotFoundError):
        return DataError(f"{repository.uri}: {first_line(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return error  # the disk's, not the hub's
    return Unreachable(f"the hub cannot be asked for {repository.uri}: {first_line(error)}")


def first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check(path: Path, entry: Entry, uri: str) -> None:
    """The hub names large files by SHA-256 and small ones as git does. Raises StorageError where it is another."""
    size = path.stat().st_size
    hashed = hashlib.sha256() if len(entry.etag) == 64 else hashlib.sha1(b"blob %d\0" % size)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
    if size != entry.size or hashed.hexdigest() != entry.etag:
        path.unlink()
        raise StorageError(f"{uri} arrived damaged ({size} of {entry.size} bytes, or another hash); run again")


def reporting(progress: Callable[[int], None]) -> Any:
    """A progress bar class for the client that draws nothing and reports bytes."""

    class Bar:
        def __init__(self, *args: Any, **options: Any) -> None:
            self.n, self.total = 0, options.get("total")

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def update(self, more: float | None = 1) -> None:
            progress(int(more or 0))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args, **options: None

    return Bar
