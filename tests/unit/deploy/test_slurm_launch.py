"""What the batch script starts on the nodes, for every way to have sft-job there, and how signals get to it."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from job.deploy.slurm_sets import lines_of
from job.errors import ConfigError
from tests.batching import Desk

COMMON = [
    "--nodes=1",
    "--ntasks=1",
    "--ntasks-per-node=1",
    "--export=ALL",
    "--mem=0",
    "--kill-on-bad-exit=0",
    "--wait=660",
]


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_supervisor_on_each_node_with_its_share_of_cpus(desk: Desk) -> None:
    (call,) = desk.live("run.yaml", "--set", "a.b=c d").called("srun")
    assert call == ["srun", *COMMON, "--cpus-per-task=8", "sft-job", "run", "run.yaml", "--set", "a.b=c d"]
    desk.job |= {"SLURM_JOB_NUM_NODES": "3"}
    del desk.job["SLURM_CPUS_PER_TASK"]
    (call,) = desk.live("run.yaml").called("srun")
    assert call[1:4] == ["--nodes=3", "--ntasks=3", "--ntasks-per-node=1"]
    assert "--label" in call and not [word for word in call if word.startswith("--cpus")]


def test_gpus_that_gres_asked_for_beside_the_scripts_own_line_all_reach_the_supervisor(desk: Desk) -> None:
    desk.job |= {"SLURM_GPUS_PER_NODE": "1", "SLURM_GPUS_ON_NODE": "4"}
    assert "--gpus-per-node=4" in desk.live("run.yaml").called("srun")[0]
    desk.job |= {"SLURM_GPUS_PER_NODE": "a100:4"}
    assert "--gpus" not in " ".join(desk.live("run.yaml").called("srun")[0])


def test_a_module_or_a_virtual_environment_is_put_on_the_path(desk: Desk) -> None:
    venv = desk.folder / "my venv" / "bin"
    venv.mkdir(parents=True)
    (desk.folder / "bin" / "sft-job").rename(venv / "sft-job")
    life = desk.live("run.yaml", SFT_JOB_RUNTIME=f"venv:{venv.parent}")
    assert life.code == 0 and desk.environment()["PATH"].startswith(f"{venv}:"), life.log
    shell = (
        'module() { echo "module $* $UNSET" >>"$DESK/modules"; PATH="$DESK/my venv/bin:$PATH"; }; export -f module\n'
    )
    (desk.folder / "functions").write_text(shell)
    life = desk.live("run.yaml", SFT_JOB_RUNTIME="module:cuda/12,sft-job", BASH_ENV="functions")
    assert life.code == 0, life.log
    assert (desk.folder / "modules").read_text().split() == ["module", "load", "cuda/12", "sft-job"]


CONTAINERS = {
    "apptainer:/images/a b.sif": [
        *("--cpus-per-task=8", "{bin}/apptainer", "exec", "--nv", "--no-home", "--pwd", "{desk}"),
        *(
            "--env",
            "PYTHONNOUSERSITE=1",
            "--env",
            "SFT_JOB_HOME=/local/home",
            "--bind",
            "{desk},/var,/tmp,/local/home,/scratch/cache,/data,/x:/y:ro",
        ),
        *("/images/a b.sif", "sft-job", "run", "run.yaml"),
    ],
    "pyxis:registry#org/image:1": [
        *("--cpus-per-task=8", "--container-image=registry#org/image:1"),
        "--container-mounts={desk}:{desk},/var:/var,/tmp:/tmp,/local/home:/local/home,"
        "/scratch/cache:/scratch/cache,/data:/data,/x:/y:ro",
        *(
            "--container-workdir={desk}",
            "--container-env=SFT_JOB_HOME",
            "--no-container-mount-home",
            "sft-job",
            "run",
            "run.yaml",
        ),
    ],
    "oci:/bundles/one": ["--cpus-per-task=8", "--container=/bundles/one", "sft-job", "run", "run.yaml"],
}


@pytest.mark.parametrize("runtime", CONTAINERS)
def test_a_container_gets_the_command_line_that_is_written_here(desk: Desk, runtime: str) -> None:
    life = desk.live(
        "run.yaml",
        SFT_JOB_RUNTIME=runtime,
        SFT_JOB_HOME="/local/home",
        SFT_JOB_CACHE="/scratch/cache",
        SFT_JOB_BIND="/data,/x:/y:ro",
        SLURM_TMPDIR="/var",
        SLURM_JOB_END_TIME="1",
        TZ="UTC",
    )
    made, call = life.called("srun")
    assert made == ["srun", *COMMON, "--cpus-per-task=8", "mkdir", "-p", "/local/home"]
    written = [word.format(bin=desk.folder / "bin", desk=desk.folder) for word in CONTAINERS[runtime]]
    assert call == ["srun", *COMMON, *written]
    inside = desk.environment()
    assert inside["PYTHONNOUSERSITE"] == "1" and inside["SFT_JOB_END_TIME"] == "1896112800"
    assert inside["SFT_JOB_EXIT_FILE"] == str(desk.folder / ".sft-job-7-0.exit") and inside["SFT_JOB_GRACE"] == "120"
    assert life.code == 0 and life.decision == "exit 0 (done): the run is finished"


def test_the_end_time_of_one_life_is_not_told_to_the_job_that_follows(desk: Desk) -> None:
    life = desk.live("run.yaml", SFT_JOB_RUNTIME="apptainer:a.sif", CODE="75", REFUSED="is disabled")
    assert life.called("sbatch") and "SFT_JOB_END_TIME" not in desk.environment("follow-up-environment")


@pytest.mark.parametrize("runtime", ["", "apptainer:image.sif"])
def test_term_and_usr1_reach_the_program_inside_and_the_script_waits_for_it(desk: Desk, runtime: str) -> None:
    process = desk.start("run.yaml", SFT_JOB_RUNTIME=runtime, SIGNALS="3", CODE="75")
    taken = desk.folder / "taken"
    for count, sent in enumerate((signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM), 1):
        until(lambda count=count: (desk.folder / "started").exists() and len(taken.read_text().split()) >= count - 1)
        os.kill(process.pid, sent)
        until(lambda count=count: len(taken.read_text().split()) >= count)
    life = desk.end(process)
    # srun's answer to TERM would be to kill its tasks.
    assert (desk.folder / "heard").read_text().split() == ["USR1"] * 3
    assert life.code == 75 and life.decision == "exit 75 (stopped): requeued", life.log


def test_a_stop_before_the_run_has_begun_is_a_stop(desk: Desk) -> None:
    (desk.folder / "functions").write_text("module() { kill -s USR1 $$; }; export -f module\n")
    life = desk.live("run.yaml", SFT_JOB_RUNTIME="module:x", BASH_ENV="functions")
    assert life.code == 75 and not life.called("srun") and life.asked == ["scontrol requeue"]


def test_a_run_that_was_stopped_and_then_killed_was_stopped(desk: Desk) -> None:
    process = desk.start("run.yaml", SIGNALS="1", SILENT="1", KILLED="1")
    until((desk.folder / "started").exists)
    while not (desk.folder / "heard").read_text():  # bash may miss one as it begins to wait
        os.kill(process.pid, signal.SIGUSR1)
        time.sleep(0.5)
    life = desk.end(process)
    assert life.code == 75 and life.decision == "exit 75 (stopped): requeued"


@pytest.mark.parametrize(
    ("runtime", "told"),
    [
        ("docker:image", "SFT_JOB_RUNTIME is docker:image: it begins with venv:, module:"),
        ("venv:/nowhere", "there is no /nowhere/bin/sft-job on "),
    ],
)
def test_a_runtime_that_cannot_be_is_an_error_of_the_config(desk: Desk, runtime: str, told: str) -> None:
    life = desk.live("run.yaml", SFT_JOB_RUNTIME=runtime)  # although there is an sft-job on PATH
    assert life.code == 78 and life.decision.startswith(f"exit 78 (config): {told}") and not life.called("srun")


LINES = [
    "--set run=a",
    """  --set 'samples.prompts=["Who?"]'\t--set run="b c" --set x=$HOME*`id`~   """,
    """--set=run=c' d'"'e" --set 'y= #1	2' --set z=#2 --take-over""",
    "--set run=微调\u00a0é --set x=-n --set y={a,b}",
    "--set run=last",
]
WORDS = [
    ["--set", "run=a"],
    ["--set", 'samples.prompts=["Who?"]', "--set", "run=b c", "--set", "x=$HOME*`id`~"],
    ["--set=run=c d'e", "--set", "y= #1\t2", "--set", "z=#2", "--take-over"],
    ["--set", "run=微调\u00a0é", "--set", "x=-n", "--set", "y={a,b}"],
    ["--set", "run=last"],
]


@pytest.mark.parametrize("task", range(1, 6))
def test_a_line_of_the_table_is_one_tasks_options_as_they_were_checked(desk: Desk, task: int) -> None:
    table = desk.folder / "-a table"
    table.write_text("\n".join(LINES), encoding="utf-8")
    checked = [value.removeprefix("--set=") for value in WORDS[task - 1] if "=" in value]
    assert list(lines_of(table)[task - 1]) == checked
    desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": str(task)}
    (call,) = desk.live("run.yaml", SFT_JOB_SETS="-a table").called("srun")
    assert call[call.index("run.yaml") + 1 :] == WORDS[task - 1]


UNREAD = "table:1: take out backslashes, line ends of Windows and other control characters"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("--set run=a\r\n", UNREAD),
        ("--set run=a\\ b\n", UNREAD),
        ('--set "run=a\\"b"\n', UNREAD),
        ("--set run=a\v--set run=b\n", UNREAD),
        ("--set 'run=b", "table:1: a quote is not closed"),
        (" \t\n", "table has no line 1; "),
        ("", "table has no line 1; "),
    ],
)
def test_what_the_check_of_a_table_refuses_the_job_does_not_run_either(desk: Desk, text: str, told: str) -> None:
    table = desk.folder / "table"
    table.write_text(text, newline="", encoding="utf-8")
    with pytest.raises(ConfigError):
        lines_of(table)
    desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "1"}
    life = desk.live("run.yaml", SFT_JOB_SETS="table")
    assert life.code == 78 and life.decision.startswith(f"exit 78 (config): {told}") and not life.called("srun")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("3", "exit 78 (config): table has no line 3; line N is task N's: sbatch --array=1-N"),
        ("0", "exit 78 (config): table has no line 0; line N is task N's: sbatch --array=1-N"),
        ("", "exit 78 (config): table has no line 0; line N is task N's: sbatch --array=1-N"),
        ("2", "exit 78 (config): table:2: a quote is not closed"),
    ],
)
def test_a_task_without_a_line_of_its_own_is_an_error_of_the_config(desk: Desk, task: str, told: str) -> None:
    (desk.folder / "table").write_text("--set run=a\n--set 'run=b\n")
    if task:
        desk.job |= {"SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": task}
    life = desk.live("run.yaml", SFT_JOB_SETS="table")
    assert life.code == 78 and life.decision == told and not life.called("srun")


def test_a_table_that_is_not_there_is_told_as_that(desk: Desk) -> None:
    decision = desk.live("run.yaml", SFT_JOB_SETS="tabel").decision
    assert decision.startswith("exit 78 (config): SFT_JOB_SETS is tabel: there is no such file on ")


@pytest.mark.parametrize(
    ("given", "leader"),
    [
        ("%N", "n1"),
        ("%N-ib.cluster:29500", "n1-ib.cluster:29500"),
        ("%A", "10.0.0.1"),
        ("[%A]:29500", "[10.0.0.1]:29500"),
        ("first.example", "first.example"),
    ],
)
def test_the_first_nodes_address_may_follow_from_its_name_or_from_what_slurm_knows(
    desk: Desk, given: str, leader: str
) -> None:
    told = "NodeName=n1 Arch=x86_64 NodeAddr=10.0.0.1 NodeHostName=n1 Version=22.05.8"
    life = desk.live("run.yaml", SFT_JOB_LEADER=given, NODE_TOLD=told, CODE="75", REFUSED="is disabled")
    assert desk.environment()["SFT_JOB_LEADER"] == leader
    assert desk.environment("follow-up-environment")["SFT_JOB_LEADER"] == given and life.called("sbatch")


def test_a_node_that_slurm_tells_nothing_of_has_its_name(desk: Desk) -> None:
    desk.live("run.yaml", SFT_JOB_LEADER="%A", CODE="75", REFUSED="is disabled")
    assert desk.environment()["SFT_JOB_LEADER"] == "n1"
    desk.live("run.yaml", CODE="75", REFUSED="is disabled")
    assert not {"SFT_JOB_LEADER"} & {*desk.environment(), *desk.environment("follow-up-environment")}


def test_a_job_without_a_config_says_how_to_give_one(desk: Desk) -> None:
    assert desk.live().decision == "exit 78 (config): no RUN.yaml was given: sbatch sft-job.sbatch RUN.yaml"
