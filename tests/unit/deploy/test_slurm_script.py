"""The batch script as text: the one that lies ready, the rendered ones, and what no shell can misread."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.deploy.slurm import VARIABLES, Batch, script
from job.deploy.slurm_options import checked
from tests.batching import BATCHES, GOLDEN, SHIPPED, Desk

RUN = "run: runs/one\nmodel: {base: models/one}\ndata: {train: [a.jsonl]}\nlora: {}\n"
HOSTILE = "it's \"so\" $HOME `id` $(id) \\ * ; & # 'é 微调"


def sft_job(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    command = [sys.executable, "-m", "job", *words]
    root = str(SHIPPED.parents[1])
    return subprocess.run(
        command, cwd=cwd, env={**env, "PYTHONPATH": root, **environment}, capture_output=True, text=True, timeout=120
    )


def test_what_lies_ready_is_what_is_rendered_byte_for_byte(tmp_path: Path) -> None:
    said = sft_job("render", "slurm", cwd=tmp_path)
    assert said.returncode == 0 and said.stdout.encode() == SHIPPED.read_bytes()
    assert os.access(SHIPPED, os.X_OK)


@pytest.mark.parametrize("name", BATCHES)
def test_a_rendered_script_is_the_golden_one(name: str) -> None:
    assert script(BATCHES[name]) == (GOLDEN / f"slurm-{name}.sbatch").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [None, *BATCHES])
def test_a_shell_reads_it_without_complaint(tmp_path: Path, name: str | None) -> None:
    path = tmp_path / "job.sbatch"
    path.write_text(script(BATCHES[name] if name else Batch()), encoding="utf-8")
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=60)
    if shutil.which("shellcheck"):
        said = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stdout


def test_a_persons_values_differ_from_the_usual_only_where_they_were_given() -> None:
    usual, given = script(Batch()).splitlines(), script(Batch(nodes="4", partition="gpu")).splitlines()
    assert [line for line in given if line not in usual] == ["#SBATCH --nodes=4", "#SBATCH --partition=gpu"]


def test_its_head_names_every_variable_that_its_body_reads() -> None:
    text = script(Batch())
    head, _, body = text.partition("set -u\n")
    assert all(name in head and f"${{{name}" in body for name in VARIABLES)


def test_grace_decides_when_slurm_signals_and_what_the_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    usual = sft_job("render", "slurm", "run.yaml", cwd=tmp_path).stdout
    assert "--signal=B:USR1@180\n" in usual and "SFT_JOB_GRACE:-120}" in usual
    longer = sft_job("render", "slurm", "run.yaml", "--set", "grace=10m", cwd=tmp_path).stdout
    assert "--signal=B:USR1@660\n" in longer and "SFT_JOB_GRACE:-600}" in longer


def test_the_last_node_may_stay_for_as_long_as_a_lost_one_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    said = sft_job("render", "slurm", "run.yaml", "--set", "parallel.wait_for_nodes=30m", cwd=tmp_path).stdout
    assert "--wait=1860)" in said


def test_names_and_settings_reach_the_run_as_they_were_typed(desk: Desk) -> None:
    name = f"{HOSTILE.replace('/', '')}.yaml"
    (desk.folder / name).write_text(RUN, encoding="utf-8")
    said = sft_job("render", "slurm", name, "--set", f"run={HOSTILE}".replace("$HOME", "x"), cwd=desk.folder)
    assert said.returncode == 0, said.stderr
    (call,) = desk.live("--take-over", text=said.stdout).called("srun")
    assert call[call.index("run") + 1 :] == [name, "--set", f"run={HOSTILE}".replace("$HOME", "x"), "--take-over"]


def test_rendered_settings_are_as_good_as_variables(desk: Desk) -> None:
    (desk.folder / "a table").write_text("--set run=b\n")
    batch = checked(Batch(runtime="apptainer:a b.sif", bind="/data", sets="a table", arguments=("run.yaml",)))
    desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
    (call,) = desk.live(text=script(batch)).called("srun")
    assert call[-7:] == [f"{desk.folder},/tmp,/data", "a b.sif", "sft-job", "run", "run.yaml", "--set", "run=b"]


def test_a_job_that_follows_a_rendered_one_is_not_given_its_own_options_twice(desk: Desk) -> None:
    text = script(Batch(arguments=("run.yaml", "--set", "a=b")))
    (call,) = desk.live("--take-over", text=text, CODE="75", REFUSED="is disabled").called("sbatch")
    assert call[-2:] == [str(desk.folder / "slurm_script"), "--take-over"]


def test_on_cpus_no_gpu_is_asked_for(tmp_path: Path) -> None:
    assert "gpu" not in sft_job("render", "slurm", "--gpus-per-node", "0", cwd=tmp_path).stdout.partition("\n#\n")[0]


def test_an_array_may_name_its_task_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.replace("one\n", "${SLURM_ARRAY_TASK_ID}\n", 1))
    said = sft_job("render", "slurm", "run.yaml", "--array", "0-4%2", cwd=tmp_path)
    assert said.returncode == 0 and "#SBATCH --array=0-4%2\n#SBATCH --output=%x-%A_%a.out\n" in said.stdout
    assert sft_job("render", "slurm", "run.yaml", cwd=tmp_path).returncode == 78


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("--set run=a\n--set train.lerning_rate=1\n", "table:2: --set train.lerning_rate: unknown field"),
        ("--set run=a\n--set=run=a\n", "table: lines 1 and 2 have the same run, a"),
        ("--set run=a\n\n", "table:2: the line is empty, but it is task 2's"),
        ("--set 'run=a\n", "table:1: a quote is not closed"),
        ("", "table is empty"),
    ],
)
def test_a_table_is_checked_line_by_line(tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "table").write_text(table)
    said = sft_job("render", "slurm", "run.yaml", "--sets", "table", cwd=tmp_path)
    assert said.returncode == 78 and told in said.stderr and not said.stdout
    (tmp_path / "table").write_text("--set run=a\n--set run=b\n")
    assert "--array=1-2\n" in sft_job("render", "slurm", "run.yaml", "--sets", "table", cwd=tmp_path).stdout


def test_a_bad_config_is_told_as_ever(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN + "grase: 1m\n")
    said = sft_job("render", "slurm", "run.yaml", cwd=tmp_path)
    assert said.returncode == 78 and "did you mean grace" in said.stderr and not said.stdout
