"""`sft-job doctor` as it is typed: what this machine can do, and what ranks on it can do with each other."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from job.host.devices import visible_gpus
from tests.harness import Job, finish
from tests.servers import free_port

pytestmark = pytest.mark.slow

NO_GPU = pytest.mark.skipif(visible_gpus() > 0, reason="this machine has a GPU")
CPU = ["doctor", "--gpu", "--device", "cpu"]


def statuses(job: Job) -> dict[str, str]:
    lines = re.findall(r"^(ok|warning|missing|not tried) +(.*?)  ", job.said(), re.MULTILINE)
    return {name: status for status, name in lines}


def probing(job: Job) -> list[int]:
    """The ranks, once they are there."""
    deadline = time.monotonic() + 60
    while not (ranks := [pid for pid, command in job.descendants().items() if "-m job.probe " in command]):
        assert time.monotonic() < deadline and job.process.poll() is None, job.said()
        time.sleep(0.02)
    return ranks


def config(folder: Path, parallel: str) -> str:
    path = folder / "run.yaml"
    text = f"run: {folder}/run\nmodel: {{base: b}}\ndata: {{train: [d.jsonl]}}\nlora: {{}}\nparallel: {{{parallel}}}\n"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_machine_that_can_run_is_told_about_and_left_as_it_was(tmp_path: Path) -> None:
    job = finish(["doctor"], tmp_path, {})
    found = statuses(job)
    assert set(found.values()) <= {"ok", "warning"}
    assert {"place in the job", "memory", "cores", "/dev/shm", "open files", "SFT_JOB_HOME", "writes", "a sync"} <= set(
        found
    )
    assert found["packages"] == "ok" and "torch 2." in job.said()
    assert job.said().splitlines()[-1].startswith("a run can start here")
    assert job.stdout() == "" and [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_json_is_one_object_with_the_same_findings(tmp_path: Path) -> None:
    job = finish(["doctor", "--json"], tmp_path, {})
    report = json.loads(job.stdout())
    assert report["usable"] is True and report["exit_code"] == 0 and report["reason"] is None
    assert report["store"] is None and report["probes"] == [] and report["gpus"] == []
    assert report["machine"][0]["name"] == "place in the job"
    assert job.said() == ""


def test_a_home_that_cannot_be_made_is_the_cause_it_leaves_with(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    job = Job(["doctor"], tmp_path, {"SFT_JOB_HOME": str(tmp_path / "file" / "home")})
    assert job.ended() == 69, job.said()
    assert statuses(job)["SFT_JOB_HOME"] == "missing"
    assert "set SFT_JOB_HOME to one that can be written" in job.said().splitlines()[-1]


def test_a_launcher_that_contradicts_itself_is_a_mistake_in_the_command(tmp_path: Path) -> None:
    job = finish(["doctor"], tmp_path, {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": "2", "SFT_JOB_LEADER": "n0"}, 78)
    assert "SFT_JOB_NODE_RANK is 2, but SFT_JOB_NODES is 2" in job.said().splitlines()[-1]
    assert statuses(job)["packages"] == "ok", "the other probes are told about all the same"


@NO_GPU
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    job = finish(["doctor", "--gpu"], tmp_path, {}, 69)
    assert "shows no GPU" in job.said().splitlines()[-1] and "--device cpu" in job.said().splitlines()[-1]


def test_ranks_compute_and_reduce_and_none_is_left(tmp_path: Path) -> None:
    job = finish(CPU, tmp_path, {})
    found = statuses(job)
    assert {found[name] for name in ("torch", "the ranks meet", "all-reduce (gloo)")} == {"ok"}
    assert found["matrix product"] in ("ok", "warning")
    assert "exact over 2 ranks" in job.said()


def test_as_many_ranks_as_the_config_says_are_tried(tmp_path: Path) -> None:
    job = finish([*CPU, "--store", config(tmp_path, "nproc_per_node: 3")], tmp_path / "home", {})
    assert "exact over 3 ranks" in job.said()
    assert "a run can live in" in job.said().splitlines()[-1]


def node(rank: int, port: int, folder: Path, *more: str) -> Job:
    told = {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": str(rank), "SFT_JOB_LEADER": f"127.0.0.1:{port}"}
    return Job([*CPU, *more], folder / f"home-{rank}", told)


def test_two_nodes_reduce_with_each_other(tmp_path: Path) -> None:
    port = free_port()
    nodes = [node(rank, port, tmp_path) for rank in range(2)]
    for rank, job in enumerate(nodes):
        assert job.ended() == 0, job.said()
        assert f"node {rank} of 2" in job.said() and f"2 at 127.0.0.1:{port}" in job.said()
        assert statuses(job)["all-reduce (gloo)"] == "ok"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_node_that_stays_alone_says_what_may_keep_the_others_away(tmp_path: Path, rank: int) -> None:
    job = node(rank, free_port(), tmp_path, "--store", config(tmp_path, "wait_for_nodes: 3s"))
    assert job.ended() == 69, job.said()
    last = job.said().splitlines()[-1]
    assert "the ranks do not meet" in last and "is it started on every node" in last
    assert statuses(job)["matrix product"] in ("ok", "warning"), "what was found before is told"


def test_a_rank_that_dies_is_named(tmp_path: Path) -> None:
    job = Job(CPU, tmp_path, {})
    os.kill(probing(job)[0], signal.SIGKILL)
    assert job.ended() == 69, job.said()
    assert "was ended by SIGKILL" in job.said().splitlines()[-1]


def test_a_stop_ends_it_and_its_ranks(tmp_path: Path) -> None:
    job = Job(CPU, tmp_path, {})
    probing(job)
    job.signal(signal.SIGTERM)
    assert job.ended() == 75, job.said()


def test_ranks_die_with_it(tmp_path: Path) -> None:
    job = Job(CPU, tmp_path, {})
    probing(job)
    job.signal(signal.SIGKILL)
    assert job.ended() == -signal.SIGKILL
