"""A run keeps the rows it began with; that a local source is no longer as it was is only said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN = 3


def changed_sources(summary: Mapping[str, Any]) -> str | None:
    """A warning where data files on this machine have another size than when they were prepared, else None.

    Files that are not here are not looked for: an attempt may run anywhere, and needs none of them.
    """
    changed = []
    for source in summary.get("sources", ()):
        size = _bytes(source["uri"])
        if size is not None and size != source.get("bytes", size):
            changed.append(f"{source['uri']} ({source['bytes']:,} bytes then, {size:,} now)")
    if not changed:
        return None
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return (
        f"changed since this run began, which keeps the rows it prepared then: {', '.join(changed[:SHOWN])}{more}; "
        "to train on what is there now, begin anew in another run folder"
    )


def _bytes(uri: str) -> int | None:
    path = Path(uri.removeprefix("file://"))
    try:
        return path.stat().st_size if path.is_absolute() and path.is_file() else None
    except OSError:
        return None
