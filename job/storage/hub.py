"""A hub's revision is pinned to its commit, then its files are a store like any other: stat, list, download by name."""

import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from job.errors import ConfigError, DataError
from job.storage.cache import Cache
from job.storage.hub_client import (
    Repository,
    asked,
    check,
    endpoint,
    is_offline,
    one_line_errors,
    patiently,
    ranged,
    reporting,
)
from job.storage.sources import Folder, Remote, Source
from job.storage.store import Entry, NotFound, Unreachable

SCHEME = "hf://"
NAME = re.compile(
    r"hf://(?P<kind>datasets/|models/)?(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>refs/pr/\d+|[^/]+))?(/(?P<key>.*))?"
)
PATIENT_SECONDS, SHORT_SECONDS = 300.0, 20.0


def split(uri: str) -> tuple[Repository, str]:
    """(repository, key) of `hf://[datasets/]org/name[@revision][/key]`. Raises ConfigError."""
    found = NAME.fullmatch(uri)
    if not found:
        raise ConfigError(f"{uri} should read hf://org/name@revision or hf://datasets/org/name@revision/file")
    kind = "dataset" if found["kind"] == "datasets/" else "model"
    return Repository(found["name"], kind, unquote(found["revision"] or "main")), found["key"] or ""


def open_hub(repository: Repository, cache: Cache, notice: Callable[[str], None]) -> Source:
    """The pinned repository; where the hub cannot be asked, at the commit it was last pinned to.

    Raises DataError where it is not there, is gated, or offline mode is on and nothing of it is on this machine;
    StorageError where the hub cannot be reached.
    """
    if (pulled := cache.noted_before(f"pin of {repository.uri}")) is not None:
        pinned = Repository(repository.name, repository.kind, str(pulled["commit"]))
        return Remote(PulledHub(pinned), "", cache, notice)
    noted = cache.noted(f"pin of {repository.uri}")
    known = str(noted["commit"]) if noted else None
    try:
        store = HubStore(repository, SHORT_SECONDS if known else PATIENT_SECONDS)
    except Unreachable as error:
        if known is None:
            if is_offline():
                return offline_snapshot(repository)
            raise
        return Remote(LostHub(Repository(repository.name, repository.kind, known).uri, error), "", cache, notice)
    for uri in (repository.uri, store.uri):  # the next attempt asks for the commit
        cache.note(f"pin of {uri}", {"commit": store.repository.revision})
    return Remote(store, "", cache, notice)


class HubStore:
    """The reading part of a store over one commit; the hub's own answer says what it holds."""

    def __init__(self, repository: Repository, give_up_after_seconds: float) -> None:
        info = asked(repository, give_up_after_seconds)
        self.repository = Repository(repository.name, repository.kind, info.sha)
        self._entries = {
            file.rfilename: Entry(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else file.blob_id)
            for file in info.siblings or []
        }

    @property
    def uri(self) -> str:
        return self.repository.uri

    def stat(self, key: str) -> Entry:
        if key not in self._entries:
            raise NotFound(f"{self.uri}/{key}: there is no such file")
        return self._entries[key]

    def list(self, prefix: str) -> list[Entry]:
        return [entry for key, entry in sorted(self._entries.items()) if key.startswith(prefix)]

    def read(self, key: str, start: int, size: int) -> bytes:
        """A few bytes of a large file, asked for by their range."""
        self.stat(key)
        return patiently(lambda: ranged(self.repository, key, start, size), SHORT_SECONDS)

    def download(
        self, key: str, path: Path, progress: Callable[[int], None] | None = None, expect: Entry | None = None
    ) -> Entry:
        """Through the hub's client, which knows its content network; checked here, because it checks only the size."""
        entry = self.stat(key)
        folder = path.with_name("hub")
        shutil.rmtree(folder, ignore_errors=True)  # a killed download cannot be gone on with: its name was unique
        report = progress or (lambda more: None)

        def fetch() -> Path:
            with one_line_errors(self.repository):
                from huggingface_hub import hf_hub_download

                return Path(
                    hf_hub_download(
                        self.repository.name,
                        key,
                        repo_type=self.repository.kind,
                        revision=self.repository.revision,
                        local_dir=folder,
                        endpoint=endpoint(),
                        tqdm_class=reporting(report),
                    )
                )

        found = patiently(fetch, PATIENT_SECONDS, report)
        check(found, entry, f"{self.uri}/{key}")
        with found.open("rb") as file:
            os.fsync(file.fileno())
        found.replace(path)
        shutil.rmtree(folder, ignore_errors=True)
        return entry


class PulledHub:
    """A commit that was pulled before: the hub is asked only where something of it is missing."""

    def __init__(self, repository: Repository) -> None:
        self._repository, self._opened, self._turn = repository, list[HubStore](), threading.Lock()

    @property
    def uri(self) -> str:
        return self._repository.uri

    def stat(self, key: str) -> Entry:
        return self._store().stat(key)

    def list(self, prefix: str) -> list[Entry]:
        return self._store().list(prefix)

    def read(self, key: str, start: int, size: int) -> bytes:
        return self._store().read(key, start, size)

    def download(
        self, key: str, path: Path, progress: Callable[[int], None] | None = None, expect: Entry | None = None
    ) -> Entry:
        return self._store().download(key, path, progress, expect)

    def _store(self) -> HubStore:
        with self._turn:
            if not self._opened:
                self._opened.append(HubStore(self._repository, SHORT_SECONDS))
            return self._opened[0]


class LostHub:
    """A hub that cannot be asked: every question raises why, so that the cache stands in."""

    def __init__(self, uri: str, error: Unreachable) -> None:
        self.uri, self._error = uri, error

    def stat(self, key: str) -> Entry:
        raise self._error

    def list(self, prefix: str) -> list[Entry]:
        raise self._error

    def read(self, key: str, start: int, size: int) -> bytes:
        raise self._error

    def download(
        self, key: str, path: Path, progress: Callable[[int], None] | None = None, expect: Entry | None = None
    ) -> Entry:
        raise self._error


def offline_snapshot(repository: Repository) -> Folder:
    """What the hub's client has in its own cache. Raises DataError."""
    try:
        from huggingface_hub import snapshot_download

        return Folder(
            Path(
                snapshot_download(
                    repository.name, repo_type=repository.kind, revision=repository.revision, local_files_only=True
                )
            )
        )
    except Exception as error:
        raise DataError(
            f"{repository.uri} is not on this machine and HF_HUB_OFFLINE is set; "
            "run `sft-job pull` where there is network, or unset it"
        ) from error
