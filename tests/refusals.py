"""A run that must be refused: in one line, with the right code, nothing half-written, the run folder as it was."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.store import open_store
from tests.harness import Job, sets

CONFIG = """
run: RUN
model: {base: BASE}
data: {train: [DATA], max_length: 64}
lora: {r: 8, alpha: 16}
train: {max_steps: 2, global_batch_size: 1}
parallel: {device: cpu}
"""


@dataclass
class Place:
    """A config whose every part is right, to be run with one part made wrong."""

    root: Path
    fields: dict[str, Any]
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def arguments(self, wrong: Mapping[str, Any]) -> list[str]:
        file = self.root / "run.yaml"
        file.write_text(CONFIG, encoding="utf-8")
        return ["run", str(file), *sets({**self.fields, **wrong})]

    def refused(self, code: ExitCode, *words: str, more: tuple[str, ...] = (), **wrong: Any) -> list[str]:
        """Run it; expect `code`, a last line with all `words`, and every folder as before. Returns stderr's lines."""
        fields = {name.replace("__", "."): value for name, value in wrong.items()}
        store = open_store({**self.fields, **fields}["run"])
        local = store.local_path("run.json")
        before = contents(local.parent) if local is not None else None
        job = Job([*self.arguments(fields), *more], self.home, self.extra)
        assert job.ended() == code, job.said()
        said = job.said().splitlines()
        assert "Traceback" not in job.said(), job.said()
        assert [line for line in said if line.startswith("sft-job: ")] == said[-1:], job.said()
        missing = [word for word in words if word not in said[-1]]
        assert not missing, f"{missing} not in {said[-1]}"
        assert job.stdout() == ""
        assert local is None or contents(local.parent) == before
        assert left_in(self.home) == []
        return said


def contents(folder: Path) -> dict[str, str] | None:
    """Every file below `folder`, hidden ones too, with its hash; None where there is no such folder."""
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_in(home: Path) -> list[str]:
    """Attempts' local folders, and half-pulled files in the cache."""
    folders = [path for path in (home / "runs").glob("*") if path.is_dir()]
    return [str(path) for path in [*folders, *home.rglob("*.partial")]]


def right_fields(inputs: Path, run: Path) -> dict[str, Any]:
    return {"run": str(run), "model.base": str(inputs / "base"), "data.train": [str(inputs / "chat.jsonl")]}
