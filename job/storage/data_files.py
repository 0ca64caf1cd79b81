"""A data uri means one file, the files a glob matches, or the .jsonl files of a folder: sorted, never none."""

import glob
from fnmatch import fnmatchcase
from pathlib import Path

from job.errors import DataError
from job.storage import hub
from job.storage.sources import Remote
from job.storage.store import Entry

GLOB = frozenset("*?[")


def is_glob(text: str) -> bool:
    return not GLOB.isdisjoint(text)


def matches(pattern: str, key: str) -> bool:
    """As a shell matches: `*` and `?` stop at a slash, and do not match a leading dot."""
    wanted, found = pattern.split("/"), key.split("/")
    return len(wanted) == len(found) and all(
        fnmatchcase(part, each) and (not part.startswith(".") or each.startswith("."))
        for part, each in zip(found, wanted, strict=True)
    )


def split_pattern(uri: str) -> tuple[str, str]:
    """(uri of the folder below which all that is meant lies, the pattern below it: "" for the folder itself)."""
    start = len(uri) - len(hub.split(uri)[1]) - 1 if uri.startswith(hub.SCHEME) else uri.index("://") + 3
    first = min((uri.index(char, start) for char in GLOB if char in uri[start:]), default=len(uri))
    slash = uri.rfind("/", start, first)
    return (uri, "") if slash < 0 else (uri[:slash], uri[slash + 1 :])


def local_files(uri: str) -> list[Path]:
    """The files that a path means on this machine. Raises DataError."""
    here = Path(uri).expanduser().absolute()
    try:
        if here.is_dir():
            found = [file for file in here.iterdir() if matches("*.jsonl", file.name) and file.is_file()]
        elif here.exists():
            found = [here]
        elif is_glob(uri):
            found = [path for path in map(Path, glob.glob(str(here))) if path.is_file()]  # noqa: PTH207 - not absolute
        else:
            raise DataError(f"{uri}: there is no such file")
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error.strerror}") from error
    if not found:
        raise nothing(uri, here.is_dir())
    return sorted(found)


def remote_files(uri: str, at: Remote, pattern: str) -> list[tuple[str, Entry]]:
    """(name below `at`, entry) of what `pattern` means. Raises DataError, naming `uri`, and StorageError."""
    folder = pattern == "" or pattern.endswith("/")
    if not folder and not is_glob(pattern):
        entry = at.stat(pattern)
        if entry is None:
            raise at.missing(f"{uri}: there is no such object (a folder's uri ends in /)")
        return [(pattern, entry)]
    wanted = f"{pattern}*.jsonl" if folder else pattern
    found = at.matched(pattern, lambda name: matches(wanted, name))
    if not found:
        raise nothing(uri, folder)
    return found


def nothing(uri: str, folder: bool) -> DataError:
    return DataError(f"{uri}: the folder holds no .jsonl file" if folder else f"{uri}: no file matches")
