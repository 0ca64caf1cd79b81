"""The drill's ground: a folder in the user's store and one on this machine, with the inputs that every run pulls.

Both are gone at the end, however it ends; what may not be deleted is named.
"""

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from job.config import BucketOptions, load_config
from job.drill.experiment import Place, make_place
from job.drill.plan import CHAT_REPEATS, run_config
from job.drill.starts import start
from job.errors import ConfigError, JobError, error_for
from job.host.preemption import Stop
from job.report.wording import counted
from job.storage.filesystem import existing
from job.storage.store import ObjectStore, is_local, open_store
from job.workspace import scratch_folder

PATIENCE_SECONDS = 60.0
LEAVE_SECONDS = 10.0  # somebody wants it to end
Buckets = Mapping[str, BucketOptions]


@dataclass(frozen=True)
class Ground:
    """`uri`: the drill's folder in the store."""

    uri: str
    buckets: Buckets
    scratch: Path
    stop: Stop

    def store(self, name: str = "") -> ObjectStore:
        return open_store(f"{self.uri}/{name}".rstrip("/"), self.buckets, PATIENCE_SECONDS, self.stop.requested)

    def place(self, name: str) -> Place:
        """Of one run, which has this machine for its own: whatever it pulls or keeps."""
        storage = {bucket: options.model_dump(mode="json") for bucket, options in self.buckets.items()}
        config = run_config(f"{self.uri}/{name}", f"{self.uri}/base", f"{self.uri}/chat.jsonl", storage)
        return make_place(self.scratch / name, json.dumps(config, indent=1), self.store(name))

    def make_inputs(self) -> None:
        """A tiny base and a chat, made here and stored there. Raises: StorageError, HardwareError, Stopped."""
        base, chat = self.scratch / "base", self.scratch / "chat.jsonl"
        made = start(["job.tiny", base, chat], self.scratch / "making", self.stop)
        if made.code:
            raise error_for(made.code, f"the tiny model could not be made: {made.cause}")
        chat.write_bytes(chat.read_bytes() * CHAT_REPEATS)
        store = self.store()
        for file in sorted(base.iterdir()):
            store.upload(file, f"base/{file.name}")
        store.upload(chat, "chat.jsonl")


def place_named(where: str | None) -> tuple[str | None, Buckets]:
    """(URI, options by bucket) of a URI, a path or a RUN.yaml; None: a folder of this machine. Raises: ConfigError."""
    if where is None:
        return None, {}
    if not where:
        raise ConfigError("--store is empty; name s3://bucket/prefix, a path, or a RUN.yaml")
    if Path(where).suffix in (".yaml", ".yml") and is_local(where):
        config = load_config(Path(where))
        return config.run, config.storage
    if is_local(where) and Path(where).expanduser().is_file():
        raise ConfigError(f"{where} is a file, but neither a folder nor a RUN.yaml: this is no store")
    if not is_local(where) and not where.startswith("s3://"):
        raise ConfigError(f"{where}: no run can live there; use s3://bucket/prefix or a path on a shared filesystem")
    return where.rstrip("/") or where, {}


@contextlib.contextmanager
def ground(where: str | None, stop: Stop, say: Callable[[str], None]) -> Iterator[Ground]:
    """Raises: ConfigError where it is no store, HardwareError where this machine has no place."""
    uri, buckets = place_named(where)
    name = f"drill-{secrets.token_hex(6)}"
    with scratch_folder(name) as scratch:
        root = open_store(uri or str(scratch / "store"), buckets).uri
        there = existing(Path(root)) if is_local(root) else None
        try:
            yield Ground(f"{root}/{name}", buckets, scratch, stop)
        finally:
            _remove(f"{root}/{name}", buckets, say)
            if there is not None:
                _remove_empty(Path(root), there)


def _remove(uri: str, buckets: Buckets, say: Callable[[str], None]) -> None:
    """With a store of its own: one that has heard a stop would not wait."""
    if is_local(uri):
        shutil.rmtree(uri, ignore_errors=True)
        left, why = sum(1 for path in Path(uri).rglob("*") if path.is_file()), ""
    else:
        store, left, why = open_store(uri, buckets, LEAVE_SECONDS), 0, ""
        try:
            keys = [entry.key for entry in store.list("")]
            left = len(keys)
            if keys:
                store.delete(keys)
            left = 0
        except JobError as error:
            why = f" ({error})"
    if left or why:
        what = counted(left, "object") if left else "what was written"
        say(f"{what} had to stay in {uri}: delete it by hand; nothing looks there{why}")


def _remove_empty(folder: Path, there: Path) -> None:
    """Folders that were not there before."""
    with contextlib.suppress(OSError):
        while folder != there:
            folder.rmdir()
            folder = folder.parent
