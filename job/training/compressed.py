"""A file is read as the bytes it means: gzip and zstd are known by their first bytes, whatever the file is called."""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from job.errors import DataError
from job.training.rows import Source

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UTF8_BOM = b"\xef\xbb\xbf"
OTHER_BOMS = {  # the longer first: UTF-32's begins as UTF-16's does
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
BUFFER_BYTES = 1 << 20


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """What goes wrong with the file as a whole, while a damaged archive or table is read too, is a DataError."""
    from pyarrow.lib import ArrowException

    try:
        yield
    except (OSError, EOFError, ArrowException) as error:
        # an error of the system has its words in `strerror`, one of a library in its first line
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source.uri}: cannot be read ({said[:200]})") from error


@contextmanager
def text_bytes(source: Source) -> Iterator[BinaryIO]:
    """The decompressed bytes of a text file, its byte order mark taken off. Raises DataError."""
    with reading(source), closing(_opened(source.path)) as file:
        start = file.peek(len(UTF8_BOM) + 1)
        for mark, name in OTHER_BOMS.items():
            if start.startswith(mark):
                raise DataError(f"{source.uri} is {name} text; save it as UTF-8")
        if start.startswith(UTF8_BOM):
            file.read(len(UTF8_BOM))
        yield cast(BinaryIO, file)


def compression(path: Path) -> str | None:
    """gzip, zstd, or None. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(4)
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def _opened(path: Path) -> io.BufferedReader:
    packed = compression(path)
    if packed is None:
        return io.BufferedReader(io.FileIO(path), BUFFER_BYTES)
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression=packed), BUFFER_BYTES)
