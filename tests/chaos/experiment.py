"""One experiment: a run is interrupted as told, started again until it is finished, and judged."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.errors import ExitCode
from job.storage.store import ObjectStore, open_store
from job.tiny import QUESTION, make, write_demo_chat
from tests.chaos.judge import (
    Rows,
    finished,
    judge_commits,
    judge_end,
    judge_events,
    launches,
    newest_step,
    tensors,
    trajectory,
)
from tests.chaos.observing import SUPERVISOR, Deed, Plan
from tests.chaos.warm import Warm, WarmJob
from tests.harness import sets

STEPS, ROWS = 20, 57  # 57 rows are left of 64 for training: eight steps are an epoch, the last of them partial
MOST_ATTEMPTS = 8
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "one": {},
    "full": {"lora": None, "train.learning_rate": 1e-3},
    "two": {"parallel.nproc_per_node": 2},
    "best": {"best.final": "best", "train.eval_steps": 2},
}


@dataclass(frozen=True)
class Experiment:
    """`deeds`: one for each attempt, from the first on. `name` and `seed` repeat it."""

    layout: str
    deeds: tuple[Deed, ...]
    must_happen: bool = True  # every deed; at random instants a run may be over before

    @property
    def fields(self) -> Mapping[str, Any]:
        """A busy machine outruns its uploads: the first and the last commit are all that is sure."""
        return {"checkpoint.keep": 1} if any("delete" in deed.pattern for deed in self.deeds) else {}

    def __str__(self) -> str:
        return f"{self.layout}: {'; then '.join(str(deed) for deed in self.deeds)}"


@dataclass(frozen=True)
class Alone:
    """What the uninterrupted run of a layout made."""

    tensors: dict[str, bytes]
    rows: Rows


@dataclass
class Laboratory:
    """A place for experiments: inputs, the warm interpreter, and what each layout makes when it is left alone.

    `bucket`: the s3:// URI below which inputs and runs lie; None: they lie in the folder.
    """

    folder: Path
    warm: Warm
    bucket: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    alone: dict[str, Alone] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        base, chat = make(self.folder / "base"), write_demo_chat(self.folder / "chat.jsonl")
        if self.bucket is not None:
            store = open_store(self.bucket)
            for file in sorted(base.iterdir()):
                store.upload(file, f"base/{file.name}")
            store.upload(chat, "chat.jsonl")

    @property
    def root(self) -> str:
        return self.bucket or str(self.folder)

    def store(self, name: str) -> ObjectStore:
        return open_store(f"{self.root}/runs/{name}")

    def arguments(self, name: str, fields: Mapping[str, Any]) -> list[str]:
        """A RUN.yaml of the experiment's own, and what differs from it."""
        path = self.folder / name / "run.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"""
run: {self.root}/runs/{name}
model: {{base: "{self.root}/base"}}
data: {{train: ["{self.root}/chat.jsonl"], eval: 0.1, max_length: 64}}
lora: {{r: 4, alpha: 8, dropout: 0.1}}
train: {{max_steps: {STEPS}, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 5}}
checkpoint: {{every: 3 steps, keep: 2}}
samples: {{prompts: ["{QUESTION}"], max_new_tokens: 6}}
parallel: {{device: cpu, nproc_per_node: 1}}
track: []
""",
            encoding="utf-8",
        )
        return ["run", str(path), *sets(fields)]

    def start(
        self, name: str, fields: Mapping[str, Any], home: str = "home", options: Sequence[str] = (), **special: Any
    ) -> WarmJob:
        """One attempt of run `name`; `special`: fields of its Plan."""
        place = self.folder / name
        folder = place / "seen" / home
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "done").unlink(missing_ok=True)
        plan = Plan(root=str(self.folder), folder=str(folder), **special)
        arguments = [*self.arguments(name, fields), *options]
        return self.warm.start(arguments, place / home, self.extra, plan)

    def left_alone(self, layout: str) -> Alone:
        """Made once. Its first run warms the interpreter with what it imported."""
        if layout not in self.alone:
            name = f"alone-{layout}"
            job = self.start(name, LAYOUTS[layout], record=True)
            assert job.ended() == ExitCode.DONE, job.said()
            seen = self.folder / name / "seen" / "home"
            if not self.alone:
                names = {line for file in seen.glob("modules-*") for line in file.read_text("utf-8").split()}
                self.warm.import_all(sorted(names))
            rows = trajectory(launches(seen / "ledger"))
            assert_every_row_once_per_epoch(rows)
            self.alone[layout] = Alone(tensors(self.store(name), self.folder / name / "final"), rows)
        return self.alone[layout]

    def conduct(self, name: str, experiment: Experiment) -> str:
        """Raises AssertionError when anything is not as promised. Returns what happened, in one line."""
        alone, store = self.left_alone(experiment.layout), self.store(name)
        fields, place = {**LAYOUTS[experiment.layout], **experiment.fields}, self.folder / name
        deeds, supervisor_killed, story = list(experiment.deeds), False, []
        for attempt in range(1, MOST_ATTEMPTS + 1):
            deed = deeds.pop(0) if deeds else None
            before = newest_step(store)
            job = self.start(name, fields, deed=deed)
            code = job.ended()
            done = deed is not None and (place / "seen" / "home" / "done").exists()
            assert done or deed is None or not experiment.must_happen, f"never happened: {deed}\n{job.said()}"
            killed = done and deed is not None and (deed.target, deed.signal) == (SUPERVISOR, "SIGKILL") and code != 0
            supervisor_killed = supervisor_killed or killed
            told = [launch for launch in launches(place / "seen" / "home" / "ledger") if launch.attempt == attempt]
            try:
                judge_end(code, killed, store, place / "home")
                assert code in allowed_codes(deed if done else None), f"exit {code}"
                assert not told or told[0].resume == before, f"resumed from {told[0].resume}, the newest was {before}"
                if code == ExitCode.STOPPED and told:
                    assert newest_step(store) == told[-1].last, f"stopped at {told[-1].last}, not committed"
            except AssertionError as error:
                raise AssertionError(f"attempt {attempt}: {error}\n{job.said()}") from None
            lost = told[-1].last - newest_step(store) if told else 0
            story.append(f"exit {code}" + (f", {lost} steps lost" if lost else ""))
            if finished(store) is not None and not killed:
                break
        assert finished(store) is not None, f"not finished after {MOST_ATTEMPTS} attempts: {story}"
        self._judge(name, store, alone, whole=not supervisor_killed)
        shutil.rmtree(place)
        return "; ".join(story)

    def _judge(self, name: str, store: ObjectStore, alone: Alone, whole: bool) -> None:
        place = self.folder / name
        judge_commits(store)
        told = launches(place / "seen" / "home" / "ledger")
        assert trajectory(told) == alone.rows, "other rows than in the run that was left alone"
        judge_events(store, told, STEPS, whole)
        assert tensors(store, place / "final") == alone.tensors, "the result is not bit-identical"


def allowed_codes(deed: Deed | None) -> tuple[int, ...]:
    if deed is None:
        return (ExitCode.DONE,)
    if deed.target != SUPERVISOR:  # begun again in place, or before its first step
        return (ExitCode.DONE, ExitCode.CRASHED)
    if deed.signal == "SIGKILL":
        return (-9, ExitCode.DONE)
    return (ExitCode.STOPPED, ExitCode.DONE)


def assert_every_row_once_per_epoch(rows: Rows) -> None:
    assert sorted(rows) == list(range(1, STEPS + 1))
    per_epoch = -(-ROWS // 8)
    for first in range(1, STEPS + 1, per_epoch):
        epoch = [row for step in range(first, first + per_epoch) for row in rows.get(step, [])]
        assert len(epoch) == len(set(epoch))
        if first + per_epoch <= STEPS + 1:
            assert sorted(epoch) == list(range(ROWS))
