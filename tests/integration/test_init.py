"""A run that starts from another's result begins as that one ended, with an optimizer that knows nothing."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, download_files, read_commit
from job.storage.records import RUN, RunRecord
from job.storage.store import open_store
from tests.continuing import Runs, inputs, same, upload_inputs
from tests.servers import Bucket

pytestmark = pytest.mark.slow

ONE_STEP = {"train__max_steps": 1, "checkpoint__every": "1 steps"}  # the first step of a warm-up: a learning rate of 0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With two finished runs: `alone` made an adapter, `full` a model."""
    root = tmp_path_factory.mktemp("init")
    inputs(root)
    made = Runs(str(root), root / "home")
    made.run("alone")
    made.run("full", lora=None, train__learning_rate=1e-3, train__max_steps=10)
    return made


def test_a_run_that_starts_from_a_runs_adapter_begins_as_that_one_ended(runs: Runs, tmp_path: Path) -> None:
    runs.run("again", model__init=runs.place("alone"), train__seed=42, **ONE_STEP)
    alone, again = runs.result("alone"), runs.result("again")
    assert same(runs.tensors("again"), runs.tensors("alone"))
    assert again.evaluations[0]["step"] == 1
    assert again.evaluations[0]["eval_loss"] == alone.evaluations[-1]["eval_loss"]
    record = RunRecord.parse(runs.store("again").get(RUN), RUN)
    assert record.init_source == f"{runs.place('alone')}/{alone.folder}"
    assert record.init["adapter_model.safetensors"].startswith("sha256:")

    optimizer = _optimizer(runs, "again", tmp_path)
    assert not [name for name in optimizer if name.startswith("step/")]  # its count of steps is the run's: 1
    for name, first in optimizer.items():
        if name.startswith("exp_avg/"):  # after one step from nothing: 0.1 g, and 0.001 g^2
            second = optimizer[name.replace("exp_avg/", "exp_avg_sq/")]
            np.testing.assert_allclose(second, 0.001 * (first / 0.1) ** 2, rtol=1e-4, atol=1e-20)


def test_full_weights_go_on_as_full_weights(runs: Runs) -> None:
    runs.run("more", lora=None, model__init=runs.place("full"), **ONE_STEP)
    assert same(runs.tensors("more"), runs.tensors("full"))


def test_an_adapters_folder_on_s3_is_pulled_and_no_more_needed_once_there_is_a_commit(
    runs: Runs, s3: Bucket, tmp_path: Path
) -> None:
    store = open_store(s3.uri)
    upload_inputs(Path(runs.root), store)
    result = runs.result("alone")
    for file in result.files:
        store.upload(Path(runs.place("alone")) / result.folder / file.name, f"adapters/one/{file.name}")
    cloud = Runs(s3.uri, tmp_path / "home", dict(s3.env))
    cloud.run("from", model__init=f"{s3.uri}/adapters/one", **ONE_STEP)
    assert same(cloud.tensors("from"), runs.tensors("alone"))

    cloud.store("from").delete(["final/result.json"])
    store.delete([entry.key for entry in store.list("adapters/")])
    shutil.rmtree(tmp_path / "home" / "cache", ignore_errors=True)
    cloud.run("from", model__init=f"{s3.uri}/adapters/one", **ONE_STEP)
    assert same(cloud.tensors("from"), runs.tensors("alone"))


def test_what_does_not_agree_is_refused_before_the_run_is_claimed(runs: Runs) -> None:
    for fields, code, said in (
        ({"lora__r": 8}, ExitCode.CONFIG, "model.init: the adapter in"),
        ({"lora": None}, ExitCode.CONFIG, "is an adapter, and lora is null; set lora.r: 4, lora.alpha: 8"),
        ({"model__init": runs.place("full")}, ExitCode.CONFIG, "set model.base to it"),
        ({"model__init": runs.place("none")}, ExitCode.DATA, "model.init: "),
    ):
        refused = runs.run("never", code=code, **{"model__init": runs.place("alone"), **ONE_STEP, **fields})
        assert said in refused.said().splitlines()[-1], refused.said()
    assert runs.store("never").list("") == []


def _optimizer(runs: Runs, name: str, folder: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    store = runs.store(name)
    commit = read_commit(store, commit_keys(store)[0])
    download_files(store, commit.folder, commit.files, folder / "commit")
    return load_file(folder / "commit" / "optimizer.safetensors")
