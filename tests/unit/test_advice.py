"""The commands that a refusal names do what they say, whatever the run has, and name a folder that is free."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from job.advice import free_folder, way_on
from job.config import RunConfig
from job.rundir import RunDir
from job.settled import begin, load
from job.storage.records import FORK, RESULT, Result
from job.storage.store import NO_OPTIONS, open_store
from tests.committing import claimed
from tests.unit.test_settled import INPUTS

ADAPTER, FULL = {"r": 16}, None


@pytest.fixture
def local(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "local").make()
    run.prepared.mkdir()
    (run.prepared / "summary.json").write_bytes(b"{}")
    return run


def said(tmp_path: Path, local: RunDir, finished: bool, lora: Any, changes: dict[str, Any], **model: Any) -> str:
    """The advice where a run that is there is to be run under `changes`."""
    place = str(tmp_path / "a run")
    raw = {"run": place, "model": {"base": "/base", "precision": "fp32", **model}, "data": {"train": ["/d.jsonl"]}}
    config = RunConfig.from_dict({**raw, "lora": lora})
    store = open_store(place)
    record = begin(config, store, claimed(store), INPUTS, local)
    if finished:
        made = {"kind": "adapter", "chat": True, "step": 3, "steps": 3, "best": None, "attempt": 1, "evaluations": []}
        about = {"commit": None, "base": "/base", "created": "", "versions": {}}
        store.put(RESULT, Result(folder="final/0001", files=[], **about, **made).dump())
    advice = way_on(config.replace(changes), record)
    assert "\n" not in advice
    return advice


def begun_by(advice: str) -> RunConfig:
    """The config that the advised `sft-job run` would have."""
    verb, place, *words = shlex.split(re.split(r"sft-job (?=run )", advice)[1])
    assert verb == "run" and words[::2] == ["--set"] * (len(words) // 2)
    return load(place, words[1::2])


@pytest.mark.parametrize(
    ("finished", "lora", "changes", "words", "base", "init"),
    [
        (True, ADAPTER, {"model.base": "/other"}, "from its result", "/other", "{run}"),
        (True, ADAPTER, {"train.optim": "adamw_8bit"}, "from its result", "/base", "{run}"),
        (False, ADAPTER, {"model.base": "/other"}, "no result to start from yet; or begin anew", "/other", None),
        (True, ADAPTER, {"lora.r": 8}, "leave the adapter as it is (lora.r)", "/base", None),
        (True, ADAPTER, {"lora": None}, "leave the adapter as it is (lora)", "/base", None),
        (True, FULL, {"lora": {}}, "with an adapter on its result", "{run}/final/0001", None),
        (False, FULL, {"lora": {}}, "no result to start from yet", "/base", None),
        (True, ADAPTER, {"model.init": "/adapter"}, "begin a new run", "/base", "/adapter"),
    ],
)
def test_where_no_fork_fits_the_command_begins_a_run_that_has_the_users_change(
    tmp_path: Path,
    local: RunDir,
    finished: bool,
    lora: Any,
    changes: dict[str, Any],
    words: str,
    base: str,
    init: str | None,
) -> None:
    advice = said(tmp_path, local, finished, lora, changes)
    place = str(tmp_path / "a run")
    assert words in advice and "sft-job fork" not in advice
    config = begun_by(advice)
    assert (config.run, config.model.base) == (f"{place}-2", base.format(run=place))
    assert config.model.init == (init.format(run=place) if init else None)
    wanted = RunConfig.from_dict({**config.to_dict(), "model": {"base": "/base"}}).replace(changes)
    assert (config.lora, config.train.optim) == (wanted.lora, wanted.train.optim)


def test_an_adapter_on_a_result_needs_no_start_of_that_run(tmp_path: Path, local: RunDir) -> None:
    assert begun_by(said(tmp_path, local, True, FULL, {"lora": {}}, init="/weights")).model.init is None


def test_the_folder_that_is_proposed_is_free(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert free_folder(run, NO_OPTIONS) == f"{run}-2"
    open_store(f"{run}-2").put(FORK, b"{}")
    open_store(f"{run}-3").put("notes.txt", b"")
    (tmp_path / "run-4").mkdir()
    assert free_folder(run, NO_OPTIONS) == f"{run}-4"
    assert free_folder(f"{run}-2", NO_OPTIONS) == f"{run}-4"


def test_where_nobody_can_look_the_next_folder_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody-has-this")
    assert free_folder("s3://bucket/run", NO_OPTIONS) == "s3://bucket/run-2"
