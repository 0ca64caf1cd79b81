"""`sft-job plan` as it is typed: what a run will need, and nothing of it is pulled, claimed or written."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from tests import standins
from tests.harness import Job, finish
from tests.refusals import Place, contents, left_in
from tests.servers import Bucket
from tests.shapes import GEMMA_2B, write_headers

pytestmark = pytest.mark.slow

MACHINE = ("--gpus-per-node", "8xH100-80")


def plan(place: Place, *more: str, code: int = 0, **wrong: Any) -> Job:
    fields = {name.replace("__", "."): value for name, value in wrong.items()}
    if "--gpus-per-node" in more:
        fields["parallel.device"] = "cuda"
    job = finish(["plan", *place.arguments(fields)[1:], *more], place.home, place.extra, code)
    assert "Traceback" not in job.said() and left_in(place.home) == []
    return job


def found_by(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.stdout())
    return found


def test_a_run_is_planned_for_a_machine_that_is_not_at_hand(place: Place, tmp_path: Path) -> None:
    base = write_headers(tmp_path / "gemma", GEMMA_2B, tied=True)  # over data that take no room
    job = plan(place, *MACHINE, "--nodes", "2", model__base=str(base))
    page = job.stdout()
    assert "8 x H100 80GB on each of 2 nodes" in page and "2.51 B parameters" in page and "▶ ddp" in page
    assert all(strategy in page for strategy in ("zero1", "zero2", "zero3"))
    assert not Path(place.fields["run"]).exists()


def test_on_s3_neither_weights_nor_data_are_pulled(place_on_s3: Place, s3: Bucket, tmp_path: Path) -> None:
    weights = Path(tmp_path / "large.safetensors")
    standins.gemma(tmp_path / "base")
    shutil.copy(tmp_path / "base" / "model.safetensors", weights)
    before = contents_of(s3)
    found = found_by(plan(place_on_s3, *MACHINE, "--json"))
    assert found["model"]["kind"] == "gemma" and found["disk"]["base"] >= weights.stat().st_size
    assert found["data"]["rows"] >= 1 and not found["data"]["measured"]
    pulled = [path for path in (place_on_s3.home / "cache").rglob("*") if path.is_file()]
    assert not any(path.stat().st_size == weights.stat().st_size for path in pulled)
    assert contents_of(s3) == before


def contents_of(s3: Bucket) -> dict[str, str]:
    listed = s3.client().list_objects_v2(Bucket=s3.name).get("Contents", ())
    return {item["Key"]: item["ETag"] for item in listed}


def test_of_a_run_that_has_begun_its_own_rows_and_steps_count(begun: Place) -> None:
    folder = Path(begun.fields["run"])
    before = contents(folder)
    found = found_by(plan(begun, "--json"))
    assert found["begun"] and found["data"]["measured"] and found["steps"]["done"] > 0
    assert found["hours"]["measured"] and found["checkpoint"]["measured"]
    assert contents(folder) == before


def test_a_run_folder_is_planned_like_the_yaml_it_began_with(begun: Place) -> None:
    by_yaml = found_by(plan(begun, "--json"))
    job = finish(["plan", begun.fields["run"], "--json"], begun.home, begun.extra)
    assert found_by(job) == by_yaml


def test_launch_and_deepspeed_are_shown_on_request(place: Place, tmp_path: Path) -> None:
    base = write_headers(tmp_path / "gemma", GEMMA_2B, tied=True)
    asked = ("--launch", "--deepspeed", "--json")
    found = found_by(plan(place, *MACHINE, *asked, model__base=str(base), parallel__strategy="zero2"))
    assert [one["rank"] for one in found["launch"]] == list(range(8))
    assert found["deepspeed"]["zero_optimization"]["stage"] == 2
    assert found_by(plan(place, *MACHINE, "--json"))["deepspeed"] is None


@pytest.mark.parametrize(
    ("wrong", "more", "code", "words"),
    [
        ({"model.base": "/no/such/base"}, (), ExitCode.DATA, "model.base: /no/such/base: there is no such folder"),
        ({"data.train": ["/no/such.jsonl"]}, (), ExitCode.DATA, "data.train: /no/such.jsonl: there is no such file"),
        ({}, ("--gpus-per-node", "many"), ExitCode.CONFIG, "write COUNTxNAME-GB"),
        ({"parallel.device": "cuda"}, (), ExitCode.CONFIG, "--gpus-per-node 8xH100-80"),
        ({}, MACHINE, ExitCode.CONFIG, "parallel.device is cpu"),
    ],
    ids=["base", "data", "machine", "no-gpu", "cpu"],
)
def test_what_is_wrong_is_told_in_one_line(
    place: Place, wrong: dict[str, Any], more: tuple[str, ...], code: ExitCode, words: str
) -> None:
    place.fields |= {"parallel.device": "cpu"}
    job = finish(["plan", *place.arguments(wrong)[1:], *more], place.home, place.extra, code)
    last = [line for line in job.said().splitlines() if line][-1]
    assert words in last and "Traceback" not in job.said()


def test_without_torch_a_plan_is_made_all_the_same(place: Place, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "torch.py").write_text("raise ImportError('torch was asked for')\n", encoding="utf-8")
    place.extra = {"PYTHONPATH": os.pathsep.join((str(site), str(Path(__file__).parents[2])))}
    assert "single" in plan(place).stdout()
