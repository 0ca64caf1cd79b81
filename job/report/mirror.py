"""A local folder whose files only grow, mirrored into the store: each push puts what changed since the last."""

from pathlib import Path

from job.storage.store import ObjectStore


class Mirror:
    """Puts the files below `folder` that match one of `patterns` at `<prefix>/<path below folder>`, each as a whole."""

    def __init__(self, store: ObjectStore, folder: Path, prefix: str, patterns: tuple[str, ...] = ("**/*",)) -> None:
        self._store, self._folder, self._prefix, self._patterns = store, folder, prefix, patterns
        self._pushed: dict[Path, int] = {}  # file -> its size in the store, in bytes

    def push(self) -> None:
        """Raises what the store raises; what was not stored is tried again at the next push."""
        for path in sorted({path for pattern in self._patterns for path in self._folder.glob(pattern)}):
            if not path.is_file() or path.stat().st_size == self._pushed.get(path):
                continue
            # Read first, then put: a file that grows during an upload would break its length and checksum.
            body = path.read_bytes()
            self._store.put(f"{self._prefix}/{path.relative_to(self._folder).as_posix()}", body)
            self._pushed[path] = len(body)
