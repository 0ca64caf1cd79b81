"""What the script does after each exit code: the program is a player of codes, Slurm is real."""

import re

import pytest

from job.errors import ExitCode
from tests.slurm.cluster import Cluster
from tests.slurm.player import write_player
from tests.slurm.submitting import Batch, Desk

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]

NEVER = [ExitCode.DATA, ExitCode.MEMORY, ExitCode.NO_PROGRESS, ExitCode.FENCED, ExitCode.BUSY, ExitCode.CONFIG]
# Codes of a job's lives, one after the other, and with what it ends after how many of them. One retry is allowed.
ENDS = {
    "0": ("COMPLETED", 0),
    "75 75 75 0": ("COMPLETED", 0),
    "70 0": ("COMPLETED", 0),
    "74 70": ("FAILED", 70),
    "KILL 0": ("COMPLETED", 0),
    "TERM 70 TERM 0": ("COMPLETED", 0),  # a stop that came before anybody listened is no failure
    "3 3": ("FAILED", 3),
    "69 0": ("COMPLETED", 0),
    "70 75 70 0": ("COMPLETED", 0),  # a life that lasted until it was asked to stop counts anew
    **{str(code.value): ("FAILED", code.value) for code in NEVER},
}
KEPT = ("JobName", "NumNodes", "TimeLimit", "Partition", "TresPerNode", "ExcNodeList", "CPUs/Task", "WorkDir", "StdOut")


@pytest.fixture
def players(cluster: Cluster, desk: Desk) -> Desk:
    path = f"{write_player(desk.folder)}:{desk.environment()['PATH']}"
    return Desk(cluster, desk.folder, {"PATH": path, "SFT_JOB_RETRIES": "1"})


def lives(desk: Desk, name: str) -> list[str]:
    """The first node of each."""
    return (desk.folder / f"lives-{name}").read_text(encoding="utf-8").split()


def play(desk: Desk, codes: str, *options: str, **extra: str) -> Batch:
    return desk.sbatch(codes.split(), f"--job-name={codes.replace(' ', '-')}", "--cpus-per-task=1", *options, **extra)


def test_each_exit_code_is_followed_by_what_the_table_of_codes_says(players: Desk) -> None:
    jobs = {codes: play(players, codes) for codes in ENDS}
    for codes, job in jobs.items():
        assert job.ended() == ENDS[codes], f"{codes}: {job.told()}"
        taken = lives(players, codes.replace(" ", "-"))
        assert len(taken) == len(codes.split()) == job.restarts() + 1, f"{codes}: {job.said()}"
        assert f"the cause of life {len(taken)}" in job.last_line() or ENDS[codes][1] == 0, job.said()
    elsewhere = lives(players, "69-0")
    assert elsewhere[0] != elsewhere[1] and jobs["69 0"].facts()["ExcNodeList"] == elsewhere[0]
    assert re.search(r"given up after .*: the cause of life 2", jobs["74 70"].last_line())
    assert not list(players.folder.glob(".sft-job-*")), "what was written for other lives is left"


@pytest.mark.parametrize(("given", "told"), [("%A:29500", "127.0.0.1:29500"), ("%N.ib", "{first}.ib")])
def test_the_first_node_is_reached_where_the_name_or_what_slurm_knows_of_it_says(
    players: Desk, given: str, told: str
) -> None:
    job = play(players, "75 0", "--nodes=2", SFT_JOB_LEADER=given)
    said = job.finished()
    first = [told.format(first=name) for name in lives(players, "75-0")]
    assert re.findall(r"led at (\S+)", said) == first, said


def test_where_requeueing_is_refused_a_job_that_follows_goes_on_with_the_same_options_and_count(
    players: Desk, cluster: Cluster
) -> None:
    options = ["--no-requeue", "--nodes=2", "--time=17", "--partition=abrupt", "--gpus-per-node=2"]
    options.append(f"--exclude={cluster.nodes[3]}")
    jobs = [play(players, "75 70 70 0", *options, SFT_JOB_SBATCH="--no-requeue")]
    for code in (75, 70):
        assert jobs[-1].ended() == ("FAILED", code), jobs[-1].told()
        goes_on = re.findall(rf"exit {code} .* so job (\d+) goes on", jobs[-1].said())
        assert goes_on, jobs[-1].told()
        jobs.append(Batch(cluster, goes_on[-1]))
    assert jobs[-1].ended() == ("FAILED", 70) and "given up after" in jobs[-1].last_line(), jobs[-1].told()
    told = [{name: job.facts()[name] for name in KEPT} for job in jobs]
    assert all(each == told[0] for each in told), told
    assert [job.restarts() for job in jobs] == [0, 0, 0]


def test_of_an_array_only_the_task_itself_is_queued_again_and_each_has_its_line_of_options(players: Desk) -> None:
    (players.folder / "sets").write_text("75 0 'in one word'\n0\n65\n", encoding="utf-8")
    array = players.sbatch([], "--array=1-4", "--job-name=lines", "--output=%x-%a.out", SFT_JOB_SETS="sets")
    tasks = [Batch(players.cluster, f"{array.number}_{number}") for number in range(1, 5)]
    ends = [task.ended() for task in tasks]
    assert ends == [("COMPLETED", 0), ("COMPLETED", 0), ("FAILED", 65), ("FAILED", 78)], [task.said() for task in tasks]
    assert [task.restarts() for task in tasks] == [1, 0, 0, 0]
    assert "no line 4" in tasks[3].last_line()
