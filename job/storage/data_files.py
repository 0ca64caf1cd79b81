"""A data uri means one file, the data files a glob matches, or all below a folder: of one split, sorted, never none."""

import contextlib
import glob
import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from job.errors import DataError, StorageError
from job.filetypes import DEFAULT_SPLIT, SPOKEN_TYPES, canonical_split, is_data, split_of, type_of
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


def local_files(uri: str, path: str) -> tuple[Path, list[str]]:
    """(folder, names below it, sorted) of what a path means on this machine. Raises DataError naming `uri`."""
    here = Path(path).expanduser().absolute()
    try:
        if here.is_dir():
            root, found = here, [name for name in _below(here) if is_data(name)]
        elif here.exists():
            return here.parent, [here.name]
        elif is_glob(path):
            root = Path(split_pattern(f"file://{here}")[0].removeprefix("file://") or "/")
            matched = (Path(match) for match in glob.glob(str(here)))  # noqa: PTH207 - not absolute
            files = (match.relative_to(root).as_posix() for match in matched if match.is_file())
            found = [name for name in files if is_data(name)]
        else:
            raise DataError(f"{uri}: there is no such file")
    except OSError as error:
        raise DataError(f"{uri} cannot be read: {error.strerror}") from error
    if not found:
        raise nothing(uri, here.is_dir())
    return root, sorted(found)


def _below(folder: Path) -> Iterator[str]:
    """Names of all files below a folder; what cannot be listed is an error: half of the data is not the data."""

    def refuse(error: OSError) -> None:
        raise error

    for at, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from ((Path(at) / name).relative_to(folder).as_posix() for name in files)


def remote_files(uri: str, at: Remote, pattern: str) -> list[tuple[str, Entry]]:
    """(name below `at`, entry) of what `pattern` means. Raises DataError, naming `uri`, and StorageError."""
    if pattern == "" or pattern.endswith("/"):
        return _folder(at, pattern) or _none(uri, True)
    if is_glob(pattern):
        return at.matched(pattern, lambda name: matches(pattern, name) and is_data(name)) or _none(uri, False)
    entry = at.stat(pattern)
    if entry is not None:
        return [(pattern, entry)]
    with contextlib.suppress(StorageError):  # who may read an object may not always list
        if found := _folder(at, f"{pattern}/"):
            return found
    raise at.missing(f"{uri}: there is no such object, and no folder with data files")


def _folder(at: Remote, folder: str) -> list[tuple[str, Entry]]:
    return at.matched(folder, lambda name: name.startswith(folder) and is_data(name.removeprefix(folder)))


def _none(uri: str, folder: bool) -> list[tuple[str, Entry]]:
    raise nothing(uri, folder)


def nothing(uri: str, folder: bool) -> DataError:
    where = "the folder holds no data file" if folder else "no data file matches"
    return DataError(f"{uri}: {where} (known are {SPOKEN_TYPES})")


def choose(
    uri: str,
    names: Sequence[str],
    split: str | None,
    prefer: Sequence[str],
    single: bool = False,
    notice: Callable[[str], None] = lambda line: None,
) -> list[tuple[str, str | None]]:
    """(name, the split that is still to be chosen inside it, or None) of the files that are meant.

    Where files name several splits and none is asked for, the first of `prefer` that is there, said to `notice`; beside
    files that name a split, one that names none is of `train`. `single`: the one file was named itself.
    Raises DataError where there is no such split.
    """
    if single and split is None:
        return [(names[0], None)]
    named = {name: split_of(name) for name in names}
    if split is not None:
        wanted = canonical_split(split)
        chosen = [name for name in names if named[name] in (split, wanted)]
        if not chosen and not any(named.values()) and all(type_of(name) == "json" for name in names):
            return [(name, split) for name in names]
        if not chosen:
            known = ", ".join(sorted({found for found in named.values() if found}))
            has = f"there are {known}" if known else "no file or folder names one"
            raise DataError(f"{uri}: there is no split {split} ({has}); set split to another, or leave it out")
        return [(name, None) for name in chosen]
    splits = {name: found or DEFAULT_SPLIT for name, found in named.items()} if any(named.values()) else {}
    there = sorted(set(splits.values()))
    if there == [DEFAULT_SPLIT] and DEFAULT_SPLIT not in prefer:
        wanted = " or ".join(prefer)
        raise DataError(f"{uri} holds only the split {DEFAULT_SPLIT}, not {wanted}; name the file that is meant")
    if len(there) <= 1:
        return [(name, None) for name in names]
    taken = next((wanted for wanted in prefer if wanted in there), None)
    if taken is None:
        raise DataError(f"{uri} holds several splits and no {prefer[0]}: name one of {', '.join(there)} as split")
    chosen = [name for name in names if splits[name] == taken]
    notice(f"{uri} holds the splits {', '.join(there)}: taking {taken}, {len(chosen)} of {len(names)} files")
    return [(name, None) for name in chosen]
