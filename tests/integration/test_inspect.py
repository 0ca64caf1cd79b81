"""`sft-job inspect` as it is typed: what the data teach, on a machine that could not train, and no run is touched."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests import standins
from tests.harness import ROOT, Job, environment, finish
from tests.refusals import Place, contents, left_in
from tests.servers import FaultyProxy

pytestmark = pytest.mark.slow


def inspect(place: Place, *more: str, code: int = 0, **wrong: Any) -> Job:
    job = finish(arguments(place, *more, **wrong), place.home, place.extra, code)
    assert "Traceback" not in job.said() and left_in(place.home) == []
    return job


def arguments(place: Place, *more: str, **wrong: Any) -> list[str]:
    fields = {name.replace("__", "."): value for name, value in wrong.items()}
    return ["inspect", *place.arguments(fields)[1:], *more]


def found_by(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.stdout())
    return found


def several_chats(folder: Path, rows: int = 20) -> str:
    turns = [{"role": "user", "content": "微调测试"}, {"role": "assistant", "content": "我学会了"}]
    more = {"role": "user", "content": "?"}, {"role": "assistant", "content": "x"}
    return str(
        standins.write_rows(folder / "several.jsonl", [{"messages": turns + [*more] * (at % 20)} for at in range(rows)])
    )


# ---- what it needs


def without_torch_and_the_like(folder: Path) -> dict[str, str]:
    """The environment of an interpreter in which nothing can be trained."""
    folder.mkdir()
    gone = ("torch", "trl", "peft", "datasets", "accelerate", "deepspeed")
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {gone}:\n"
        "            raise ModuleNotFoundError(f'{name} was asked for', name=name)\n"
        "sys.meta_path.insert(0, Without)\n",
        encoding="utf-8",
    )
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def test_neither_torch_nor_weights_nor_a_gpu_are_needed(place: Place, right_inputs: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(right_inputs / "base", tmp_path / "base"))
    (base / "model.safetensors").unlink()
    place.extra = without_torch_and_the_like(tmp_path / "site")
    job = inspect(place, model__base=str(base), parallel__device="cuda", parallel__nproc_per_node=2)
    assert "⟦我学会了‹<end_of_turn>›↵\n‹<eos>›⟧" in job.stdout()
    assert not Path(place.fields["run"]).exists()


def test_on_s3_only_tokenizer_config_and_data_are_read_and_nothing_is_written(
    place_on_s3: Place, faulty: FaultyProxy
) -> None:
    place_on_s3.extra["AWS_ENDPOINT_URL"] = faulty.endpoint
    found = found_by(inspect(place_on_s3, "--json"))
    assert found["summary"]["rows"] == 1
    assert faulty.seen(r"^GET \S*tokenizer.json") and not faulty.seen("safetensors")
    assert not faulty.seen("^(PUT|POST|DELETE) ")


def test_a_home_that_cannot_be_written_is_said(place: Place) -> None:
    file = place.root / "file"
    file.write_bytes(b"")
    job = finish(arguments(place), place.home, {**place.extra, "SFT_JOB_HOME": str(file)}, ExitCode.HARDWARE)
    assert "SFT_JOB_HOME" in job.said().splitlines()[-1] and job.stdout() == ""


# ---- a run that has begun


@pytest.fixture
def without_data(right_inputs: Path) -> Iterator[None]:
    """The data are away: who has their rows does not need them."""
    file = right_inputs / "chat.jsonl"
    file.rename(right_inputs / "away")
    yield
    (right_inputs / "away").rename(file)


def test_of_a_run_that_has_begun_its_own_rows_are_shown_and_nothing_is_changed(
    begun: Place, without_data: None
) -> None:
    folder = Path(begun.fields["run"])
    before = contents(folder)
    by_config = found_by(inspect(begun, "--json"))
    assert found_by(finish(["inspect", str(folder), "--json"], begun.home)) == by_config
    assert by_config["begun"] and by_config["example"]["learns"][0]["text"] == "我学会了<end_of_turn>\n<eos>"
    assert contents(folder) == before and left_in(begun.home) == []


def test_another_config_than_the_runs_is_refused_as_by_run(begun: Place) -> None:
    job = inspect(begun, code=ExitCode.CONFIG, data__max_length=32)
    assert "is another run: data.max_length: 32 here, 64 in run.json" in job.said().splitlines()[-1]


# ---- mistakes


@pytest.mark.parametrize("text", ["", "hello\n", '{"messages": [{"role": "user", "content": "a"}]}\n'])
def test_bad_data_end_as_in_run(place: Place, text: str) -> None:
    file = place.root / "bad.jsonl"
    file.write_text(text, encoding="utf-8")
    ours = inspect(place, code=ExitCode.DATA, data__train=[str(file)])
    theirs = finish(place.arguments({"data.train": [str(file)]}), place.home, place.extra, ExitCode.DATA)
    assert ours.said().splitlines()[-1] == theirs.said().splitlines()[-1]
    assert str(file) in ours.said() and ours.stdout() == ""


def test_a_row_that_is_not_there_is_said_with_those_that_are(place: Place) -> None:
    job = inspect(place, "--row", "7", code=ExitCode.CONFIG)
    assert "there is no row 7: the only training row is row 0" in job.said().splitlines()[-1]
    job = inspect(
        place, "--row", "20", code=ExitCode.CONFIG, data__train=[several_chats(place.root)], data__max_length=512
    )
    assert "there is no row 20: the 20 training rows are numbered from 0 to 19" in job.said().splitlines()[-1]
    assert "--row" in inspect(place, "--row", "-1", code=ExitCode.CONFIG).said()


def test_a_page_that_cannot_be_written_is_said_before_anything_is_done(place: Place) -> None:
    for file in (place.root, place.root / "none" / "page.html"):
        job = inspect(place, "--html", str(file), code=ExitCode.CONFIG)
        assert len(job.said().splitlines()) == 1 and f"--html: {file} is " in job.said()


def test_a_config_mistake_is_told_as_everywhere(place: Place) -> None:
    assert "learning_rate" in inspect(place, code=ExitCode.CONFIG, train__lerning_rate=1e-4).said()


# ---- what it gives


def test_json_is_one_object_that_tells_each_token_and_its_step(place: Place) -> None:
    data = several_chats(place.root)
    fields: dict[str, Any] = {"train__global_batch_size": 4, "train__max_steps": 3, "parallel__nproc_per_node": 2}
    job = inspect(place, "--json", data__train=[data], data__max_length=512, **fields)
    found = found_by(job)
    example, batch = found["example"], found["batch"]
    assert (example["step"], example["row"]) == (1, batch["rows"][0]["row"])  # by default the first that is trained
    assert [token for piece in example["pieces"] for token in piece["ids"]][:2] == [2, 106]
    assert sum(len(piece["ids"]) for piece in example["pieces"]) == example["tokens"]
    assert len(batch["rows"]) == 4 and len(batch["ranks"]) == 2
    assert found["schedule"]["steps"] == 3 and found["summary"]["rows"] == 20
    assert found["layout"]["ranks"] == 2 and found["ends"] == ["<end_of_turn>", "<eos>"]
    assert "optimizer steps" in job.said() and "optimizer steps" in found["summary"]["warnings"][-1]


def test_the_page_and_the_tables_are_written_and_a_closed_pipe_is_no_failure(place: Place) -> None:
    data, page = several_chats(place.root), place.root / "page.html"
    fields: dict[str, Any] = {"data__max_length": 512, "train__max_steps": None, "train__global_batch_size": 4}
    more = arguments(place, "--ids", "--html", str(page), data__train=[data], **fields)
    command = [sys.executable, "-m", "job", *more]
    process = subprocess.Popen(
        command, env=environment(place.home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(120) == 0 and "Traceback" not in said and f"wrote {page}" in said
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.count('<div class="card">') == 20
    assert re.search(r'<bdi class="trained"[^>]*><span[^>]*>我学</span>', text)


def test_a_stop_signal_ends_it_cleanly(place: Place) -> None:
    job = Job(arguments(place, data__train=[several_chats(place.root, 20_000)], data__max_length=512), place.home)
    job.wait_for("reading")
    job.signal(signal.SIGTERM)
    assert job.ended() == ExitCode.STOPPED
    assert "stopped by SIGTERM" in job.said().splitlines()[-1]
    assert job.stdout() == "" and left_in(place.home) == []
