"""Jobs that nothing happens to: on one node and on two, in a folder and on S3, of any user, one or an array."""

import os
import subprocess
from pathlib import Path

import pytest

from job.storage.store import open_store
from tests.servers import Bucket
from tests.slurm import nodes
from tests.slurm.alone import Alone
from tests.slurm.cluster import Cluster
from tests.slurm.submitting import Batch, Desk
from tests.tiny_runs import TinyRuns

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]


def test_a_job_on_one_node_leaves_its_result_in_a_folder_and_nothing_beside_it(
    desk: Desk, runs: TinyRuns, alone: Alone
) -> None:
    before = set(desk.folder.iterdir())
    job = desk.sbatch(runs.arguments("run", {})[1:])
    job.finished()
    assert {path.name for path in set(desk.folder.iterdir()) - before} == {"runs", f"sft-job-{job.number}.out"}
    alone.assert_equals(runs.store("run"))


def test_a_job_on_two_nodes_leaves_its_result_on_s3(
    desk: Desk, runs: TinyRuns, inputs: Path, s3: Bucket, two_alone: Alone
) -> None:
    store = open_store(s3.uri)
    for file in sorted((inputs / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(inputs / "chat.jsonl", "chat.jsonl")
    places = {"run": f"{s3.uri}/run", "model.base": f"{s3.uri}/base", "data.train": [f"{s3.uri}/chat.jsonl"]}
    job = desk.sbatch(runs.arguments("run", places)[1:], "--nodes=2")
    said = job.finished()
    assert "node 1 of 2 is here" in said, said
    two_alone.assert_equals(open_store(f"{s3.uri}/run"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not nodes.open_to_all(), reason="needs namespaces: other users may not read where python lies")
def test_a_user_who_is_not_root_needs_nothing_more(desk: Desk, runs: TinyRuns, cluster: Cluster, alone: Alone) -> None:
    subprocess.run(["chown", "-R", "nobody", str(desk.folder)], check=True)
    become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    job = desk.sbatch(runs.arguments("run", {})[1:], user=become, HOME="/nonexistent")
    job.finished()
    assert job.facts()["UserId"].startswith("nobody"), job.facts()
    owners = {path.owner() for path in (desk.folder / "runs").rglob("*")}
    assert owners == {"nobody"}
    alone.assert_equals(runs.store("run"))


def test_of_an_array_of_three_runs_one_is_preempted_and_only_that_one_comes_back(
    desk: Desk, runs: TinyRuns, cluster: Cluster, alone: Alone
) -> None:
    arguments = [runs.arguments("run", {})[1], "--set", f"run={desk.folder}/runs/${{SLURM_ARRAY_TASK_ID}}"]
    desk.slow(task="1")
    array = desk.sbatch(arguments, "--array=0-2", "--gpus-per-node=2")  # a node for each
    tasks = [Batch(cluster, f"{array.number}_{number}") for number in range(3)]
    tasks[1].wait_for_commit(50)
    urgent = desk.push_out(tasks[1])
    tasks[1].wait_for("SIGTERM: stopping")
    assert urgent.ended() == ("COMPLETED", 0)
    for number, task in enumerate(tasks):
        task.finished()
        alone.assert_equals(runs.store(str(number)))
    assert [task.restarts() for task in tasks] == [0, 1, 0]
