"""Handing a script to sbatch: what is told of the job, and of a refusal."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.unit.deploy.test_slurm_script import RUN, sft_job

SBATCH = """#!/bin/bash
cat >"$DESK/script"
printf '%s\\n' "$@" >"$DESK/options"
[ -z "$SAYS" ] || { echo "$SAYS" >&2; exit 1; }
echo 'sbatch: something to know' >&2
echo '4711;cluster'
"""
SCONTROL = "#!/bin/bash\necho 'JobId=4711 JobName=x'\necho '   StdOut=/home/me/a folder/sft-job-4711.out'\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


def submit(site: Path, *options: str, says: str = "", path: str = "") -> tuple[int, str, str]:
    said = sft_job(
        "submit", "slurm", "run.yaml", *options,
        cwd=site, DESK=str(site), SAYS=says, PATH=path or f"{site}:{os.environ['PATH']}",
    )  # fmt: skip
    return said.returncode, said.stdout, said.stderr


def test_what_is_submitted_is_what_is_rendered_and_its_job_can_be_followed(site: Path) -> None:
    code, told, complaint = submit(site, "--nodes", "2")
    assert (code, complaint) == (0, "")
    dry = submit(site, "--nodes", "2", "--dry-run")
    assert (
        dry[1]
        == (site / "script").read_text()
        == sft_job("render", "slurm", "run.yaml", "--nodes", "2", cwd=site).stdout
    )
    assert (site / "options").read_text() == "--parsable\n"
    for words in (
        "job 4711",
        "squeue -j 4711",
        "tail -F '/home/me/a folder/sft-job-4711.out'",
        "scancel 4711",
        "sft-job ask run.yaml",
    ):
        assert words in told


def test_the_config_is_read_once(site: Path) -> None:
    (site / "run.yaml").unlink()
    os.mkfifo(site / "run.yaml")  # nobody would write into it a second time
    with subprocess.Popen(["bash", "-c", 'printf %s "$0" >run.yaml', RUN], cwd=site) as writer:
        code, told, complaint = submit(site, "--set", "run=runs/two")
        writer.kill()
    assert code == 0 and "sft-job ask runs/two" in told, complaint


def test_a_dry_run_submits_nothing(site: Path) -> None:
    assert submit(site, "--dry-run")[0] == 0 and not (site / "script").exists()


def test_nothing_of_the_shell_that_it_is_typed_in_wins_over_what_was_asked_for(site: Path) -> None:
    (site / "sbatch").write_text(SBATCH.replace("echo 'sbatch:", 'env >"$DESK/environment"; echo \'sbatch:'))
    theirs = dict.fromkeys(("SBATCH_PARTITION", "SLURM_ARRAY_TASK_ID", "SLURM_CONF"), "theirs")
    path = f"{site}:{os.environ['PATH']}"
    done = sft_job("submit", "slurm", "run.yaml", cwd=site, DESK=str(site), SAYS="", PATH=path, **theirs)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\w+)=theirs$", (site / "environment").read_text(), re.MULTILINE) == ["SLURM_CONF"]


def test_an_array_whose_tasks_are_all_the_same_run_is_refused(site: Path) -> None:
    code, _, complaint = submit(site, "--array", "1-3")
    assert code == 78 and "all tasks have the run" in complaint and not (site / "script").exists()


def test_each_task_of_an_array_has_its_own_log(site: Path) -> None:
    code, told, _ = submit(site, "--array", "1-3", "--set", "run=runs/${SLURM_ARRAY_TASK_ID}", "--job-name", "chat")
    assert code == 0 and f"tail -F {site}/chat-4711_*.out" in told


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ("sbatch: error: Batch job submission failed: Invalid account", 78),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", 69),
    ],
)
def test_a_refusal_is_told_in_sbatchs_own_words(site: Path, says: str, code: int) -> None:
    found, told, complaint = submit(site, says=says)
    assert (found, told) == (code, "")
    what = "sbatch refused the job" if code == 78 else "no Slurm controller answers"
    assert complaint == f"sft-job: {what}: {says.removeprefix('sbatch: error: ')}\n"


def test_without_slurm_it_says_where_to_go(site: Path) -> None:
    code, _, complaint = submit(site, path="/nowhere")
    assert code == 69 and complaint == "sft-job: there is no sbatch here; submit on a login node of the cluster\n"
