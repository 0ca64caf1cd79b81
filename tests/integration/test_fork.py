"""A fork goes on from a commit as the run itself would have, or otherwise where its config says so."""

import json
import shlex
import signal
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.records import RUN, RunRecord
from job.storage.store import open_store
from tests.continuing import STEPS, Runs, inputs, same, upload_inputs
from tests.servers import Bucket

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """With a run, `alone`, that was never interrupted; each of its commits is kept."""
    root = tmp_path_factory.mktemp("fork")
    inputs(root)
    made = Runs(str(root), root / "home")
    made.run("alone")
    return made


def test_an_unchanged_fork_of_a_finished_run_ends_in_its_very_tensors(runs: Runs) -> None:
    forked = runs.command("fork", f"{runs.place('alone')}@20", "--to", runs.place("same"))
    command = forked.stdout()
    assert command == f"sft-job run {runs.place('same')}\n"
    went_on = runs.command(*shlex.split(command)[1:])
    assert "resumed from step 20 (commits/0000-00000020.json" in went_on.said()
    assert same(runs.tensors("same"), runs.tensors("alone"))
    assert runs.result("same").evaluations == runs.result("alone").evaluations
    again = runs.command("fork", f"{runs.place('alone')}@20", "--to", runs.place("same"))
    assert "is this fork already" in again.said()


def test_a_fork_under_another_learning_rate_goes_on_otherwise_from_the_same_optimizer(runs: Runs) -> None:
    runs.command("fork", str(runs.config) + "@20", "--to", runs.place("slower"), "--set", "train.learning_rate=1e-3")
    went_on = runs.command("run", runs.place("slower"))
    alone, slower = runs.tensors("alone"), runs.tensors("slower")
    assert not same(slower, alone)
    first = [line for line in went_on.said().splitlines() if line.startswith(f"step 21/{STEPS}  loss")]
    before = [event for event in _events(runs, "alone") if event["kind"] == "step" and event["step"] == 21]
    assert f"loss {before[0]['loss']:.3f}" in first[0]  # the same tensors and rows; only the step they take differs


def test_an_unfinished_run_on_s3_goes_on_in_a_folder(runs: Runs, s3: Bucket, tmp_path: Path) -> None:
    upload_inputs(Path(runs.root), open_store(s3.uri))
    cloud = Runs(s3.uri, tmp_path / "home", dict(s3.env))
    job = cloud.job("begun", train__max_steps=STEPS)
    job.wait_for_step(12)
    job.signal(signal.SIGTERM)
    assert job.ended() == ExitCode.STOPPED, job.said()
    new = str(tmp_path / "new")
    cloud.command("fork", cloud.place("begun"), "--to", new)
    newest = read_commit(cloud.store("begun"), commit_keys(cloud.store("begun"))[0])
    assert read_commit(open_store(new), commit_keys(open_store(new))[0]).files == newest.files
    cloud.command("run", new)
    local = Runs(runs.root, tmp_path / "home2")
    (tmp_path / "runs").mkdir()
    Path(new).rename(tmp_path / "runs" / "moved")
    assert same(Runs(str(tmp_path), tmp_path / "home3").tensors("moved"), local.tensors("alone"))


def test_a_fork_that_was_cut_short_is_not_run_until_it_is_finished(runs: Runs) -> None:
    arguments = ("fork", f"{runs.place('alone')}@30", "--to", runs.place("cut"))
    runs.command(*arguments)
    runs.store("cut").delete([RUN])  # as a KILL before the last write leaves it
    refused = runs.run("cut", code=ExitCode.CONFIG)
    assert "run the same `sft-job fork` again" in refused.said().splitlines()[-1]
    assert runs.store("cut").list("attempts/") == []
    runs.command(*arguments)
    runs.command("run", runs.place("cut"))
    assert same(runs.tensors("cut"), runs.tensors("alone"))


def test_the_command_that_a_refused_config_is_told_does_what_it_says(runs: Runs) -> None:
    refused = runs.run("alone", code=ExitCode.CONFIG, train__max_steps=STEPS + 10)
    command = shlex.split(refused.said().splitlines()[-1].partition("sft-job fork")[2])
    forked = runs.command("fork", *command)
    went_on = runs.command(*shlex.split(forked.stdout())[1:])
    assert f"training {STEPS + 10} steps from step {STEPS}" in went_on.said()
    assert runs.result("alone-2").step == STEPS + 10


def test_other_data_are_prepared_by_the_fork_and_evaluated_first(runs: Runs) -> None:
    source = f"{runs.place('alone')}@20"
    wrong = runs.command("fork", source, "--to", runs.place("data"), "--set", "data.max_length=1", code=ExitCode.DATA)
    assert runs.store("data").list("") == [], wrong.said()
    runs.command("fork", source, "--to", runs.place("data"), "--set", "data.eval=0.5")
    before, after = (_record(runs, name) for name in ("alone", "data"))
    assert after.prepared != before.prepared and after.base == before.base
    went_on = runs.command("run", runs.place("data"))
    said = went_on.said()
    assert said.index("step 20/40  eval_loss") < said.index("step 21/40  loss")
    assert [done["step"] for done in runs.result("data").evaluations] == [20, 40]


def _record(runs: Runs, name: str) -> RunRecord:
    return RunRecord.parse(runs.store(name).get(RUN), RUN)


def _events(runs: Runs, name: str) -> list[dict[str, object]]:
    store = runs.store(name)
    return [json.loads(line) for entry in store.list("events/") for line in store.get(entry.key).splitlines()]
