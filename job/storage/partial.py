"""A download in pieces: the journal names a part after it was written; a later try believes what it reads back."""

import fcntl
import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from job.storage.checksum import Crc, combined, crc_of_range
from job.storage.disk import TEMPORARY, make_folder, sync, sync_folder


class Partial:
    """The hidden file that becomes `target`, as long as the object, and its journal. Raises OSError.

    One process at a time has the file that can be resumed; others that fetch the same get one that cannot.
    """

    def __init__(self, target: Path, etag: str, size: int, part_bytes: int) -> None:
        make_folder(target.parent)
        self.size, self.part_bytes = size, part_bytes
        self._target = target
        self._header = {"etag": etag, "size": size, "part_bytes": part_bytes}
        name = hashlib.blake2b(target.name.encode(), digest_size=8).hexdigest()
        self.path = target.with_name(f"{TEMPORARY}{name}.part")
        shared = _locked(self.path)
        self._resumable = shared is not None
        if shared is None:
            self.path = target.with_name(f"{TEMPORARY}{name}.{secrets.token_hex(4)}.part")
            shared = _opened(self.path)
        self.file: BinaryIO = shared
        self._journal_path = self.path.with_suffix(".journal")
        self.done = self._believed()
        if not self.done:
            self.file.truncate(0)
        self.file.truncate(size)
        self._journal = self._journal_path.open("w", encoding="utf-8")
        self._journal.write(json.dumps(self._header) + "\n")
        for part, crc in self.done.items():
            self.note(part, crc)

    @property
    def parts(self) -> int:
        return -(-self.size // self.part_bytes)

    def length(self, part: int) -> int:
        """Bytes of one part; the last may be shorter."""
        return min(self.part_bytes, self.size - part * self.part_bytes)

    def note(self, part: int, crc: Crc) -> None:
        """The part's bytes are in the file."""
        self.done[part] = crc
        self._journal.write(json.dumps([part, crc.value]) + "\n")
        self._journal.flush()

    def crc(self) -> Crc:
        return combined([self.done[part] for part in range(self.parts)])

    def finish(self) -> None:
        """Puts the file in place."""
        sync(self.file)
        self.path.replace(self._target)
        self._journal_path.unlink(missing_ok=True)
        sync_folder(self._target.parent)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves what a later try can go on from."""
        if not self._resumable:
            self.discard()
        self._journal.close()
        self.file.close()

    def _believed(self) -> dict[int, Crc]:
        """Done parts of an earlier try at the same object; the machine may have crashed since, so each is read back."""
        try:
            header, *lines = self._journal_path.read_text(encoding="utf-8").splitlines()
            if json.loads(header) != self._header or os.fstat(self.file.fileno()).st_size != self.size:
                return {}
            noted = dict(json.loads(line) for line in lines if line.endswith("]"))  # the last line may be torn
        except (FileNotFoundError, ValueError, TypeError):
            return {}
        found = {}
        for part, value in noted.items():
            if isinstance(part, int) and 0 <= part < self.parts:
                crc = crc_of_range(self.file.fileno(), part * self.part_bytes, self.length(part))
                if crc == Crc(value, self.length(part)):
                    found[part] = crc
        return found


def _opened(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)


def _locked(path: Path) -> BinaryIO | None:
    """The file with a lock that ends with this process; None where another has it, or the filesystem has no locks."""
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        # A file that was renamed into place since it was opened is whole, and must not be written to.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
