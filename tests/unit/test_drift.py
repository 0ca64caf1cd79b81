"""A changed source is a warning, and never a reason to fail."""

from pathlib import Path
from typing import Any

from job.drift import changed_sources


def source(path: Path, size: int) -> dict[str, Any]:
    return {"uri": str(path), "bytes": size}


def test_local_files_of_another_size_are_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(b"12345")
    assert changed_sources({"sources": [source(path, 5)]}) is None
    warning = changed_sources({"sources": [source(path, 5), source(path, 1234)]})
    assert warning is not None and f"{path} (1,234 bytes then, 5 now)" in warning and "keeps the rows" in warning


def test_many_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_bytes(b"12345")
    warning = changed_sources({"sources": [source(path, 1)] * 5})
    assert warning is not None and warning.count("1 bytes then") == 3 and " and 2 more" in warning


def test_what_is_not_on_this_machine_is_not_looked_for(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "gone.jsonl"), "s3://data/chat.jsonl", "chat.jsonl", str(tmp_path)):
        assert changed_sources({"sources": [{"uri": uri, "bytes": 1}]}) is None
    assert changed_sources({}) is None
