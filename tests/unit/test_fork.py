"""A fork is whole or nobody runs it; it says where it comes from, and leaves the run it comes from as it was."""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from job import fork
from job.config import RunConfig, trajectory_digest
from job.errors import ConfigError, DataError, ExitCode
from job.host.preemption import Stop
from job.inputs import Inputs
from job.report.report import Report
from job.rundir import RunDir
from job.settled import begin, read_run
from job.storage.checkpoints import commit_keys, download_files, read_commit, restore
from job.storage.memory import MemoryStore
from job.storage.records import FORK, RUN, PreparedRecord
from job.storage.store import ObjectStore
from tests.committing import claimed, committed, content, flip, owner
from tests.hooked_store import HookedStore

INPUTS = Inputs("f1", {"model.safetensors": "d"}, "/base", "/base", chat=True)
EVALUATIONS: list[dict[str, Any]] = [{"step": 20, "eval_loss": 1.0}, {"step": 40, "eval_loss": 2.0}]


def config(run: str = "/runs/one", **fields: Any) -> RunConfig:
    tree = {"run": run, "model": {"base": "/base", "precision": "fp32"}, "data": {"train": ["/d.jsonl"]}, "lora": {}}
    found = RunConfig.from_dict({**tree, "data": {"train": ["/d.jsonl"], "eval": "/e.jsonl"}})
    return found.replace({path.replace("__", "."): value for path, value in fields.items()})


class Bench:
    """A run with commits of the steps 20 and 40, and a folder to work in."""

    def __init__(self, source: ObjectStore, root: Path) -> None:
        self.source, self.root, self.said = source, root, io.StringIO()
        self.local = RunDir(root / "local").make()
        self.local.prepared.mkdir()
        summary = {"rows": 640, "fingerprint": "f1"}
        (self.local.prepared / "train.arrow").write_bytes(b"rows")
        (self.local.prepared / "summary.json").write_text(json.dumps(summary))
        by = claimed(source)
        begin(config(), source, by, INPUTS, self.local)
        self.keys = [committed(source, root, by, step, EVALUATIONS[: step // 20]) for step in (20, 40)]
        self.works = 0

    def fork(self, target: ObjectStore, step: int | None = None, **fields: Any) -> None:
        self.works += 1
        record = read_run(self.source)
        assert record is not None
        ours = config("/runs/new", **fields)
        paths = fork.changed(ours, record.trajectory)
        forking = fork.Forking(self.source, record, ours, paths)
        local = RunDir(self.root / f"work-{self.works}").make()
        report = Report(ours, Console(file=self.said, width=1000))
        fork.copy(forking, target, step, local, Stop(30.0), report)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(MemoryStore("source"), tmp_path)


def everything(store: ObjectStore) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list("")}


# ---- what a fork holds


def test_a_fork_resumes_from_the_commit_it_was_made_of(any_store: ObjectStore, tmp_path: Path) -> None:
    bench = Bench(MemoryStore("source"), tmp_path)
    before = everything(bench.source)
    bench.fork(any_store, train__learning_rate=1e-3)
    assert everything(bench.source) == before

    found = restore(any_store, 1, tmp_path / "resume", print)
    assert found is not None
    key, commit = found
    assert key == "commits/0000-00000040.json"
    assert {path.name: path.read_bytes() for path in (tmp_path / "resume").iterdir()} == content(40)
    assert (commit.attempt, commit.step, commit.parent, commit.evaluations) == (0, 40, None, EVALUATIONS)

    record = read_run(any_store)
    assert record is not None and record.origin is not None
    assert RunConfig.from_dict(record.config) == config("/runs/new", train__learning_rate=1e-3)
    assert record.digest == commit.run_digest == trajectory_digest(RunConfig.from_dict(record.config))
    assert record.origin == commit.origin
    assert (record.origin.run, record.origin.commit) == (bench.source.uri, bench.keys[1])
    assert record.origin.digest == hashlib.sha256(bench.source.get(bench.keys[1])).hexdigest()

    prepared = PreparedRecord.parse(any_store.get("prepared/f1.json"), "")
    download_files(any_store, prepared.folder, prepared.files, tmp_path / "rows")
    assert (tmp_path / "rows" / "train.arrow").read_bytes() == b"rows"


def test_an_earlier_step_is_forked_when_it_is_named(bench: Bench) -> None:
    target = MemoryStore()
    bench.fork(target, step=20)
    (key,) = commit_keys(target)
    commit = read_commit(target, key)
    assert (commit.step, commit.evaluations) == (20, EVALUATIONS[:1])


def test_a_claim_is_newer_than_every_fork(bench: Bench, tmp_path: Path) -> None:
    target = MemoryStore()
    bench.fork(target)
    newest = committed(target, tmp_path, claimed(target), 30)
    assert commit_keys(target)[0] == newest


def test_the_best_evaluations_commit_comes_along_where_the_result_is_made_of_it(bench: Bench) -> None:
    target = MemoryStore()
    bench.fork(target, best__final="best")
    assert [read_commit(target, key).step for key in commit_keys(target)] == [40, 20]


def test_a_best_that_is_kept_no_more_is_said(bench: Bench) -> None:
    bench.source.delete([bench.keys[0]])
    target = MemoryStore()
    with pytest.raises(ConfigError, match=r"best evaluation, step 20, which .* keeps no more"):
        bench.fork(target, best__final="best")
    assert target.list("") == []


def test_a_fork_that_has_no_step_left_says_so(bench: Bench) -> None:
    bench.fork(MemoryStore(), train__max_steps=40)
    assert "its 40 steps are over at step 40" in bench.said.getvalue()
    assert "train.max_steps: 40 here, null in run.json" in bench.said.getvalue()


# ---- which commit


def test_a_damaged_commit_is_passed_over_and_the_source_is_not_marked(bench: Bench) -> None:
    flip(bench.source, read_commit(bench.source, bench.keys[1]))
    before, target = everything(bench.source), MemoryStore()
    bench.fork(target)
    assert [read_commit(target, key).step for key in commit_keys(target)] == [20]
    assert f"commit {bench.keys[1]} is damaged" in bench.said.getvalue()
    assert everything(bench.source) == before


def test_where_no_commit_is_whole_nothing_is_written(bench: Bench) -> None:
    for key in bench.keys:
        flip(bench.source, read_commit(bench.source, key))
    target = MemoryStore()
    with pytest.raises(DataError, match="no commit to go on from is whole"):
        bench.fork(target)
    assert target.list("") == []


def test_a_named_step_that_is_damaged_is_refused_with_those_there_are(bench: Bench) -> None:
    flip(bench.source, read_commit(bench.source, bench.keys[1]))
    target = MemoryStore()
    with pytest.raises(DataError, match=r"the commit of step 40 is not whole .* there are 20: fork memory://source@20"):
        bench.fork(target, step=40)
    assert target.list("") == [] and "taking the one before" not in bench.said.getvalue()


def test_a_step_without_a_commit_is_refused_with_those_there_are(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"no commit of step 30; there are 20, 40"):
        bench.fork(MemoryStore(), step=30)


def test_a_commit_that_is_pruned_meanwhile_is_looked_for_in_a_new_list(bench: Bench, tmp_path: Path) -> None:
    inner = bench.source
    pruned: list[str] = []

    def prune(operation: str, key: str) -> None:
        if operation == "get" and key == bench.keys[1] and not pruned:
            pruned.append(committed(inner, tmp_path, owner(), 60))
            inner.delete([bench.keys[1]])

    bench.source = HookedStore(inner, before=prune)
    target = MemoryStore()
    bench.fork(target)
    assert [read_commit(target, key).step for key in commit_keys(target)] == [60]


# ---- whole or not at all


def test_a_fork_killed_at_any_write_is_no_run_and_the_same_fork_finishes_it(bench: Bench) -> None:
    whole = MemoryStore()
    bench.fork(whole, train__learning_rate=1e-3)
    crashes = 0
    for at in range(100):
        inner, count = MemoryStore(), iter(range(100))

        def crash(operation: str, key: str, at: int = at, count: Any = count) -> None:
            if next(count) == at:
                raise KeyboardInterrupt

        try:
            bench.fork(HookedStore(inner, before=crash), train__learning_rate=1e-3)
        except KeyboardInterrupt:
            crashes += 1
            if inner.list(""):
                assert not commit_keys(inner) or inner.get(FORK)
                with pytest.raises(ConfigError, match="was begun and not finished"):
                    read_run(inner)
        else:
            break
        bench.fork(inner, train__learning_rate=1e-3)
        assert everything(inner).keys() - _named_after_its_time(inner) == everything(whole).keys() - (
            _named_after_its_time(whole)
        )
        assert [read_commit(inner, key).step for key in commit_keys(inner)] == [40]
        assert read_run(inner) is not None
    assert crashes >= 8


def _named_after_its_time(store: ObjectStore) -> set[str]:
    return {entry.key for entry in store.list("checkpoints/")}


def test_a_killed_fork_goes_on_with_the_commit_it_was_begun_with(bench: Bench, tmp_path: Path) -> None:
    inner = MemoryStore()

    def crash(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == RUN:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.fork(HookedStore(inner, before=crash))
    committed(bench.source, tmp_path, owner(), 60)
    bench.fork(inner)
    assert [read_commit(inner, key).step for key in commit_keys(inner)] == [40]
    with pytest.raises(ConfigError, match="is another fork"):
        bench.fork(inner, step=60)


def test_the_same_fork_again_changes_nothing(any_store: ObjectStore, tmp_path: Path) -> None:
    bench = Bench(MemoryStore("source"), tmp_path)
    bench.fork(any_store, step=20)
    before = everything(any_store)
    bench.fork(any_store, step=20)
    bench.fork(any_store)
    assert everything(any_store) == before
    assert "is this fork already" in bench.said.getvalue()


@pytest.mark.parametrize(
    ("step", "fields"),
    [(20, {}), (40, {"train__learning_rate": 1.0}), (40, {"checkpoint__keep": 9})],
    ids=str,
)
def test_another_fork_into_the_same_folder_is_refused(bench: Bench, step: int, fields: dict[str, Any]) -> None:
    target = MemoryStore()
    bench.fork(target, step=40)
    before = everything(target)
    with pytest.raises(ConfigError, match="is another fork") as caught:
        bench.fork(target, step=step, **fields)
    assert all(field.replace("__", ".") in str(caught.value) for field in fields)
    assert caught.value.exit_code == ExitCode.CONFIG
    assert everything(target) == before


def test_a_folder_that_somebody_runs_is_never_forked_into(bench: Bench) -> None:
    target = MemoryStore()
    claimed(target)
    with pytest.raises(ConfigError, match="is a run of its own"):
        bench.fork(target)
    with pytest.raises(ConfigError, match="is a run of its own"):
        bench.fork(bench.source)


def test_of_two_forks_at_the_same_moment_one_is_refused(bench: Bench) -> None:
    inner = MemoryStore()

    def overtake(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == FORK:
            bench.fork(inner, step=20)

    with pytest.raises(ConfigError, match="is another fork"):
        bench.fork(HookedStore(inner, before=overtake), step=40)
    assert [read_commit(inner, key).step for key in commit_keys(inner)] == [20]


@pytest.mark.parametrize("key", ["notes.txt", "slurm/job-1.log"])
def test_a_folder_that_holds_something_else_is_never_forked_into(bench: Bench, key: str) -> None:
    target = MemoryStore()
    target.put(key, b"mine")
    with pytest.raises(ConfigError, match=f"is not empty, it holds {key}"):
        bench.fork(target)
    assert everything(target) == {key: b"mine"}


# ---- what may not change


@pytest.mark.parametrize("setting", ["lora.r=8", "model.base=/other", "train.optim=adamw_8bit", "lora=null"])
def test_a_change_that_does_not_go_with_the_tensors_is_refused(tmp_path: Path, setting: str) -> None:
    from job.storage.store import open_store

    place = str(tmp_path / "run")
    Bench(open_store(place), tmp_path)
    with pytest.raises(ConfigError, match="a fork keeps the trained tensors") as caught:
        fork.read(place, str(tmp_path / "new"), (setting,))
    assert setting.partition("=")[0] in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_autos_stay_as_the_run_settled_them(tmp_path: Path) -> None:
    from job.storage.store import open_store

    place = str(tmp_path / "run")
    Bench(open_store(place), tmp_path)
    forking = fork.read(place, str(tmp_path / "new"), ("model.precision=auto", "train.epochs=9"))
    assert forking.config.model.precision == "fp32" and forking.paths == ["train.epochs"]
    assert forking.config.run == str(tmp_path / "new")


@pytest.mark.parametrize(
    ("to", "sets", "said"),
    [
        ("", (), "--to is empty"),
        ("  ", (), "--to is empty"),
        ("http://host/new", (), "--to: "),
        ("new:folder", (), "--to: "),
        ("{root}/new", ("run={root}/other",), "the new run folder is named by --to"),
        ("{root}/run/new", (), "lies inside the run that is forked"),
        ("{root}/link/new", (), "lies inside the run that is forked"),
        ("{root}", (), "holds the run that is forked"),
    ],
)
def test_where_a_fork_is_to_lie_is_named_by_to_alone_and_is_a_folder_beside_the_run(
    tmp_path: Path, to: str, sets: tuple[str, ...], said: str
) -> None:
    from job.storage.store import open_store

    place = tmp_path / "run"
    Bench(open_store(str(place)), tmp_path)
    (tmp_path / "link").symlink_to(place)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=said):
        fork.read(str(place), to.format(root=tmp_path), tuple(one.format(root=tmp_path) for one in sets))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("step", ["abc", "-5", "", "1e3"])
def test_a_step_that_is_no_number_is_said(tmp_path: Path, step: str) -> None:
    with pytest.raises(ConfigError, match=f"a step to fork from is a number, like {tmp_path}/run@100"):
        fork.read(f"{tmp_path}/run@{step}", str(tmp_path / "new"), ())


def test_a_run_without_its_adapter_is_no_fork_and_is_said_in_one_line(tmp_path: Path) -> None:
    from job.storage.store import open_store

    place = str(tmp_path / "run")
    Bench(open_store(place), tmp_path)
    with pytest.raises(ConfigError) as caught:
        fork.read(place, str(tmp_path / "new"), ("lora=null",))
    assert str(caught.value).startswith("lora: null here, given in run.json: a fork keeps")
    assert "leave the adapter as it is (lora), or begin anew" in str(caught.value)
    assert f"sft-job run {place} --set run={tmp_path}/new --set lora=null" in str(caught.value)


def test_a_folder_that_is_no_run_cannot_be_forked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a .yaml file"):
        fork.read(str(tmp_path / "none"), str(tmp_path / "new"), ())
