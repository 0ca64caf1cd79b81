"""What a log said, and when it was first seen to say it."""

import re
import threading
import time
from pathlib import Path
from typing import Self

POLL_SECONDS = 0.01


class Timeline:
    """Follows a file while the block lasts, whether it is there yet or not. Times are this machine's wall clock."""

    def __init__(self, path: Path) -> None:
        self._path, self._over = path, threading.Event()
        self._lines: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        offset, rest = 0, b""
        while not self._over.wait(POLL_SECONDS):
            if not self._path.exists():
                continue
            with self._path.open("rb") as file:
                file.seek(offset)
                chunk = file.read()
            now, offset = time.time(), offset + len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            self._lines += [(now, line.decode(errors="replace")) for line in whole]

    def seen(self, pattern: str, after: float = 0.0) -> tuple[float, re.Match[str]] | None:
        """The first line since `after` that holds `pattern`."""
        found = ((when, re.search(pattern, line)) for when, line in tuple(self._lines) if when > after)
        return next(((when, match) for when, match in found if match), None)

    def last(self, pattern: str, before: float) -> re.Match[str] | None:
        found = [match for when, line in tuple(self._lines) if when <= before and (match := re.search(pattern, line))]
        return found[-1] if found else None

    def text(self) -> str:
        return "\n".join(line for _, line in self._lines)
