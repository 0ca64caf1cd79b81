"""The batch script as text: the one that lies ready, the rendered ones, and what no shell can misread."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from job.cli import cli
from job.deploy.slurm import VARIABLES, Batch, script
from job.deploy.slurm_options import checked
from job.deploy.slurm_sets import FLAGS
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


def test_the_grace_of_the_shell_that_it_is_typed_in_moves_the_signal_as_it_moves_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    for run in ([], ["run.yaml"]):
        said = sft_job("render", "slurm", *run, cwd=tmp_path, SFT_JOB_GRACE="9m30s").stdout
        assert "--signal=B:USR1@630\n" in said and "SFT_JOB_GRACE:-570}" in said
    said = sft_job("render", "slurm", "run.yaml", "--set", "grace=5m", cwd=tmp_path, SFT_JOB_GRACE="570").stdout
    assert "--signal=B:USR1@360\n" in said, "the run would not heed it either"
    for grace in ("soon", "0"):
        said_wrong = sft_job("render", "slurm", cwd=tmp_path, SFT_JOB_GRACE=grace)
        assert said_wrong.returncode == 78 and f"SFT_JOB_GRACE is '{grace}': give seconds" in said_wrong.stderr


def test_a_run_that_would_be_over_before_the_grace_that_a_job_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN + "max_time: 100s\n")
    said = sft_job("render", "slurm", "run.yaml", cwd=tmp_path)
    assert said.returncode == 78 and "max_time: 100s is over before a stop" in said.stderr
    assert sft_job("render", "slurm", "run.yaml", cwd=tmp_path, SFT_JOB_GRACE="60").returncode == 0


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


def test_a_run_whose_name_begins_like_an_option_is_none(desk: Desk) -> None:
    (desk.folder / "-s.yaml").write_text(RUN)
    said = sft_job("render", "slurm", "--", "-s.yaml", cwd=desk.folder)
    assert said.returncode == 0, said.stderr
    (call,) = desk.live(text=said.stdout).called("srun")
    assert call[call.index("run") + 1 :] == ["./-s.yaml"]


def test_a_line_break_in_a_name_or_a_setting_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "a\nb.yaml").write_text(RUN)
    said = sft_job("render", "slurm", "a\nb.yaml", cwd=tmp_path)
    assert said.returncode == 78 and said.stderr.startswith("sft-job: RUN: 'a\\nb.yaml' has a character")
    (tmp_path / "run.yaml").write_text(RUN)
    said = sft_job("render", "slurm", "run.yaml", "--set", "run=a\nb", cwd=tmp_path)
    assert said.returncode == 78 and said.stderr.startswith("sft-job: --set: 'run=a\\nb' has a character")


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


def test_an_array_of_one_task_needs_no_second_run(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    assert sft_job("render", "slurm", "run.yaml", "--array", "3", cwd=tmp_path).returncode == 0
    assert sft_job("render", "slurm", "run.yaml", "--array", "3,4", cwd=tmp_path).returncode == 78


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("--set run=a\n--set train.lerning_rate=1\n", "table:2: --set train.lerning_rate: unknown field"),
        ("--set train.lerning_rate=1\n--set run=a\n", "table:1: --set train.lerning_rate: unknown field"),
        ("--set run=a\n--set=run=a\n", "table:2: line 1 has the same run, a"),
        ("--set run=a\n\n--set run=b\n", "table:2: the line is empty, but it is task 2's"),
        ("--set run=a\n \t\n--set run=b", "table:2: the line is empty, but it is task 2's"),
        ("--set 'run=a\n", "table:1: a quote is not closed"),
        ("# two runs\n--set run=a\n", "table:1: '#' is none of --set PATH=VALUE, --take-over, --try-again, and"),
        ("--set run=a # low\n", "table:1: '#' is none of"),
        ("--set run=a --help\n", "table:1: '--help' is none of"),
        ("other.yaml --set run=a\n", "table:1: 'other.yaml' is none of"),
        ("--set\u00a0run=a\n", "table:1: '--set\\xa0run=a' is none of"),
        ("--set run=a --set\n", "table:1: --set is the last word"),
        ("--set run=a\n--set run=b\\ c\n", "table:2: a backslash stands for nothing here"),
        ("--set run=a\r\n--set run=b\r\n", "table:1: the line ends as on Windows"),
        ("\ufeff--set run=a\n", "table:1: the file begins with a byte order mark"),
        ("--set run=a\f--set run=b\n", "table:1: the line holds the control character '\\x0c'"),
        ("--set run=a\x85\n", "table:1: the line holds the control character '\\x85'"),
        ("--set run=\u2028a\n--set rum=b\n", "table:2: --set rum: unknown field"),
        ("", "table is empty"),
        ("\n \n", "table is empty"),
    ],
)
def test_a_table_is_checked_line_by_line(tmp_path: Path, table: str, told: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "table").write_text(table, newline="", encoding="utf-8")
    said = sft_job("render", "slurm", "run.yaml", "--sets", "table", cwd=tmp_path)
    assert said.returncode == 78 and said.stderr.startswith(f"sft-job: {told}") and not said.stdout
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "table", ["--set run=a\n--set run=b\n", "--set run=a \t\n\t--set run=b", "--set run=a\n--set run=b\n\n \n"]
)
def test_a_table_may_end_as_editors_leave_it(tmp_path: Path, table: str) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "table").write_text(table)
    assert "--array=1-2\n" in sft_job("render", "slurm", "run.yaml", "--sets", "table", cwd=tmp_path).stdout


def test_a_mistake_that_is_not_the_tables_is_not_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"{RUN}grase: 1m\n")
    (tmp_path / "table").write_text("--set train.max_stepps=2\n")
    said = sft_job("render", "slurm", "run.yaml", "--sets", "table", "--set", "rum=x", cwd=tmp_path)
    told = [re.sub(": unknown field.*", "", line) for line in said.stderr.splitlines()]
    assert told[0] == "sft-job: 3 mistakes in the config:"
    assert sorted(told[1:]) == ["--set rum", "run.yaml:5: grase", "table:1: --set train.max_stepps"]


def test_of_a_table_only_the_lines_of_the_arrays_tasks_count_and_the_longest_grace_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "table").write_text("--set run=a\n--set run=b --set grace=10m\n--set run=a --set rum=c\n")
    said = sft_job("render", "slurm", "run.yaml", "--sets", "table", "--array", "1-2", cwd=tmp_path)
    assert said.returncode == 0 and "--signal=B:USR1@660\n" in said.stdout, said.stderr


def test_a_table_that_no_job_could_read_later_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", "."):
        said = sft_job("render", "slurm", "run.yaml", "--sets", name, cwd=tmp_path)
        assert said.returncode == 78 and f"--sets {name}: there is no such file" in said.stderr
    (tmp_path / "table").write_bytes(b"--set run=a\xff\n")
    said = sft_job("render", "slurm", "run.yaml", "--sets", "table", cwd=tmp_path)
    assert said.returncode == 78 and "--sets table cannot be read: 'utf-8' codec" in said.stderr


def test_a_table_may_hold_every_flag_of_run() -> None:
    flags = {name for option in cli.commands["run"].params for name in option.opts if getattr(option, "is_flag", False)}
    assert flags == set(FLAGS)


def test_a_bad_config_is_told_as_ever(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN + "grase: 1m\n")
    said = sft_job("render", "slurm", "run.yaml", cwd=tmp_path)
    assert said.returncode == 78 and "did you mean grace" in said.stderr and not said.stdout
