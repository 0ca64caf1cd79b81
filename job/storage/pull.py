"""Ask what is there, make room, pull, check: a tokenizer, a base model, data files; each whole or not at all."""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.errors import DataError
from job.filetypes import DEFAULT_SPLIT
from job.storage.data_files import choose, local_files, matches, remote_files, split_pattern
from job.storage.model_files import (
    ADAPTER,
    CONFIG,
    GENERATION,
    TOKENIZER,
    VOCABULARIES,
    WEIGHTS,
    check_config,
    check_safetensors,
    shards,
)
from job.storage.puller import Pull
from job.storage.sources import Folder, Source
from job.storage.store import Entry, is_local

__all__ = ["Pull", "Pulled", "PulledFile", "pull_data", "pull_files", "pull_tokenizer", "pull_weights"]

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Pulled:
    """A folder of pulled files: `source` is pinned, `files` maps names to digests, `bytes` is their sum."""

    path: Path
    source: str
    files: dict[str, str]
    bytes: int


@dataclass(frozen=True)
class PulledFile:
    """One data file: `digest` is `sha256:<hex>` of its bytes; `split` is still to be chosen inside it."""

    uri: str
    path: Path
    size: int
    digest: str
    split: str | None = None


def pull_tokenizer(source: str, dest: Path, pull: Pull, trust_remote_code: bool = False) -> Pulled:
    """The tokenizer's files into the folder `dest`. Raises DataError where there is no vocabulary, StorageError."""
    at = pull.source(source)
    found = pull.ask(at, TOKENIZER)
    if not any(name in found for name in VOCABULARIES):
        raise at.missing(f"{source} holds no tokenizer: none of {', '.join(VOCABULARIES)} is there")
    found |= code_entries(at, pull) if trust_remote_code else {}
    with whole(at, dest) as folder:
        files = pull.take(at, found, folder, "tokenizer")
    return pulled(at, dest, files, found)


def pull_weights(source: str, dest: Path, pull: Pull, trust_remote_code: bool = False) -> Pulled:
    """A base model's config and weights into the folder `dest`, by the names its config and index give.

    Raises DataError where it is no model, or a shard is missing or truncated; HardwareError without room; StorageError.
    """
    at = pull.source(source)
    there = pull.ask(at, (CONFIG, GENERATION, ADAPTER, *WEIGHTS))
    if CONFIG not in there:
        adapter = " (an adapter is there: name its base)" if ADAPTER in there else ""
        raise at.missing(f"{source} is no model: {CONFIG} is missing{adapter}")
    weights = next((name for name in WEIGHTS if name in there), None)
    entries = {name: there[name] for name in (CONFIG, GENERATION, weights) if name in there}
    with whole(at, dest) as folder:
        small = {name: entry for name, entry in entries.items() if name.endswith(".json")}
        files = pull.take(at, small, folder, "config")
        check_config(folder / CONFIG, at.file_uri(CONFIG))
        if weights is None:
            raise at.missing(f"{source} has no weights: none of {', '.join(WEIGHTS)} is there")
        if weights in small:
            entries |= shard_entries(at, weights, folder, pull)
        entries |= code_entries(at, pull) if trust_remote_code else {}
        files |= pull.take(at, {name: entries[name] for name in entries if name not in small}, folder, "weights")
        for name in entries:
            if name.endswith(".safetensors"):
                check_safetensors(folder / name, at.file_uri(name))
    return pulled(at, dest, files, entries)


def shard_entries(at: Source, index: str, folder: Path, pull: Pull) -> dict[str, Entry]:
    """The entries of all files that the index names. Raises DataError naming the first missing one."""
    names = shards(folder / index, at.file_uri(index))
    found = pull.ask(at, names)
    for name in names:
        if name not in found:
            raise at.missing(f"{at.file_uri(name)} is missing, though {index} names it")
    return found


def code_entries(at: Source, pull: Pull) -> dict[str, Entry]:
    """The python files beside a model that brings its own code; needs a listing."""
    return dict(pull.watch(lambda: at.matched("*.py", lambda name: matches("*.py", name))))


def pull_files(source: str, names: Sequence[str], dest: Path, pull: Pull, what: str = "files") -> Pulled:
    """Exactly these names below `source` into the folder `dest`. Raises DataError naming the first missing one."""
    at = pull.source(source)
    found = pull.ask(at, names)
    if lost := [name for name in names if name not in found]:
        raise at.missing(f"{at.file_uri(lost[0])}: there is no such file")
    with whole(at, dest) as folder:
        files = pull.take(at, found, folder, what)
    return pulled(at, dest, files, found)


def pull_data(
    uri: str, dest: Path, pull: Pull, split: str | None = None, prefer: Sequence[str] = (DEFAULT_SPLIT,)
) -> list[PulledFile]:
    """The data files that `uri` means (one, a glob, or all below a folder), sorted; read in place where they are local.

    `split` chooses among them; without one, the first of `prefer` that is there. Others are put into the folder `dest`,
    which several calls may share. Raises DataError naming `uri`, StorageError.
    """
    if is_local(uri):
        return _local_files(uri, uri, pull, split, prefer)
    folder_uri, pattern = split_pattern(uri)
    at = pull.remote(folder_uri)
    if isinstance(at, Folder):
        return _local_files(uri, str(at.path / pattern), pull, split, prefer)
    remote = at
    entries = dict(pull.watch(lambda: remote_files(uri, remote, pattern)))
    chosen = choose(uri, list(entries), split, prefer, single=pattern in entries, notice=pull.notice)
    # Objects of the same name may come from several folders into `dest`: the folder's hash keeps them apart.
    folder = dest / hashlib.sha256(at.uri.encode()).hexdigest()[:12]
    pull.take(at, {name: entries[name] for name, _ in chosen}, folder, "data")
    return [local_file(folder / name, pull, at.file_uri(name), inside) for name, inside in chosen]


def _local_files(uri: str, path: str, pull: Pull, split: str | None, prefer: Sequence[str]) -> list[PulledFile]:
    root, names = local_files(uri, path)
    chosen = choose(uri, names, split, prefer, single=Path(path).is_file(), notice=pull.notice)
    return [local_file(root / name, pull, split=inside) for name, inside in chosen]


def local_file(path: Path, pull: Pull, uri: str | None = None, split: str | None = None) -> PulledFile:
    try:
        return PulledFile(uri or str(path), path, path.stat().st_size, sha256(path, pull.check), split)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def sha256(path: Path, check: Callable[[], None]) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            hashed.update(chunk)
            check()
    return f"sha256:{hashed.hexdigest()}"


@contextlib.contextmanager
def whole(at: Source, dest: Path) -> Iterator[Path]:
    """The folder to pull into: it becomes `dest` when the block ends well, and is gone otherwise."""
    if isinstance(at, Folder):
        yield at.path
        return
    partial = dest.with_name(f".{dest.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if dest.is_symlink():
            dest.unlink()
        shutil.rmtree(dest, ignore_errors=True)
        partial.rename(dest)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def pulled(at: Source, dest: Path, files: dict[str, str], entries: Mapping[str, Entry]) -> Pulled:
    path = at.path if isinstance(at, Folder) else dest
    return Pulled(path, at.uri, files, sum(entry.size for entry in entries.values()))
