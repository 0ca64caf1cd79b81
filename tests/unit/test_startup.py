"""Being told something costs no second: nothing heavy is imported before it is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shapes import GEMMA_2B, write_headers

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "deepspeed", "tensorboard", "wandb", "numpy"}
CLIENTS = {"boto3", "botocore", "awscrt", "huggingface_hub", "urllib3"}
PROGRAM = """
import json, runpy, sys
from pathlib import Path
sys.argv[1:] = {arguments!r}
code = 0
try:
    {what}
except SystemExit as left:
    code = left.code
Path({report!r}).write_text(json.dumps([code, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""


def imported(what: str, tmp_path: Path, arguments: list[str] | None = None) -> tuple[int, set[str]]:
    """(exit code, top-level modules that are loaded in the end) of an interpreter that does `what`."""
    report = tmp_path / "report.json"
    program = PROGRAM.format(arguments=arguments or [], what=what, report=str(report))
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ, check=True, capture_output=True)
    code, names = json.loads(report.read_text(encoding="utf-8"))
    return code or 0, set(names)


def command(arguments: list[str], tmp_path: Path) -> tuple[int, set[str]]:
    return imported("runpy.run_module('job', run_name='__main__')", tmp_path, arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["schema"]])
def test_help_and_schema_import_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code, names = command(arguments, tmp_path)
    assert code == 0
    assert not names & (HEAVY | CLIENTS)


@pytest.mark.parametrize("verb", ["run", "pull"])
def test_a_config_error_is_told_before_anything_heavy_is_imported(tmp_path: Path, verb: str) -> None:
    wrong = tmp_path / "run.yaml"
    wrong.write_text("run: runs/one\nmodel: {bas: x}\ndata: {train: [chat.jsonl]}\nlora: {}\n", encoding="utf-8")
    code, names = command([verb, str(wrong)], tmp_path)
    assert code == 78
    assert not names & (HEAVY | CLIENTS | {"rich"})


def test_the_story_of_a_node_imports_nothing_that_only_some_runs_use(tmp_path: Path) -> None:
    _, names = imported("import job.run", tmp_path)
    assert "job" in names
    assert not names & (HEAVY | CLIENTS)


def test_a_plan_needs_nothing_heavy_and_of_the_clients_only_those_of_its_places(tmp_path: Path) -> None:
    base = write_headers(tmp_path / "base", GEMMA_2B, tied=True)
    (tmp_path / "rows.jsonl").write_text('{"text": "one row"}\n', encoding="utf-8")
    config = tmp_path / "run.yaml"
    config.write_text(
        f"run: {tmp_path}/run\nmodel: {{base: {base}}}\ndata: {{train: [{tmp_path}/rows.jsonl]}}\nlora: {{}}\n",
        encoding="utf-8",
    )
    code, names = command(["plan", str(config), "--gpus-per-node", "8xH100-80"], tmp_path)
    assert code == 0
    assert not names & (HEAVY | CLIENTS)


def test_the_ranks_side_does_import_torch_so_these_tests_can_fail(tmp_path: Path) -> None:
    _, names = imported("import job.training.batches, job.training.loss", tmp_path)
    assert "torch" in names
