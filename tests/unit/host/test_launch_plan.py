"""How ranks are started is a value: the whole of it for two nodes of eight GPUs, and each rule by itself."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from job.host.launch_plan import Surroundings, launch_plan, rank_environment
from job.host.topology import Topology
from tests.launching import GOLDEN, text

HERE = Surroundings({}, 16)
PAIR = Topology("cuda", 2, "ddp")
FAR = replace(PAIR, nodes=2, node_rank=1, leader="n0", port=29471)


def test_every_rank_of_two_nodes_of_eight_gpus_is_started_as_the_golden_file_says() -> None:
    assert text() == GOLDEN.read_text(encoding="utf-8"), "run `python -m tests.launching`, and look at what changed"


def test_the_threads_of_all_ranks_are_no_more_than_the_cores() -> None:
    assert rank_environment(PAIR, 0, 1, HERE)["OMP_NUM_THREADS"] == "8"
    assert rank_environment(replace(PAIR, ranks_per_node=32), 0, 1, HERE)["OMP_NUM_THREADS"] == "1"


def test_what_the_user_has_set_is_kept() -> None:
    around = replace(HERE, environment={"OMP_NUM_THREADS": "3", "GLOO_SOCKET_IFNAME": "ib0"}, interface="eth0")
    environment = rank_environment(FAR, 2, 1, around)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert "GLOO_SOCKET_IFNAME" not in environment, "it is inherited"
    assert rank_environment(FAR, 2, 1, replace(around, environment={}))["GLOO_SOCKET_IFNAME"] == "eth0"


def test_ranks_are_counted_over_nodes_and_devices_within_them() -> None:
    found = [one.environment for one in launch_plan(FAR, Path("/r"), 4000, around=HERE)]
    assert [(one["RANK"], one["LOCAL_RANK"], one["WORLD_SIZE"]) for one in found] == [("2", "0", "4"), ("3", "1", "4")]
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"], one["LOCAL_WORLD_SIZE"]) for one in found} == {("n0", "4000", "2")}


def test_whole_gpus_are_seen_by_every_rank() -> None:
    around = replace(HERE, environment={"CUDA_VISIBLE_DEVICES": "4,6"})
    found = [one.environment for one in launch_plan(PAIR, Path("/r"), 1, around=around)]
    assert all("CUDA_VISIBLE_DEVICES" not in one for one in found), "it is inherited"


def test_each_rank_has_a_mig_slice_of_its_own() -> None:
    around = replace(HERE, environment={"CUDA_VISIBLE_DEVICES": "MIG-a, MIG-b"})
    found = [one.environment for one in launch_plan(PAIR, Path("/r"), 1, around=around)]
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["MIG-a", "MIG-b"]
    assert [(one["RANK"], one["LOCAL_RANK"]) for one in found] == [("0", "0"), ("1", "0")]


@pytest.mark.parametrize(
    ("environment", "seen"),
    [
        ({}, {"CUDA_VISIBLE_DEVICES": "0"}),
        ({"CUDA_VISIBLE_DEVICES": "3,5"}, {"CUDA_VISIBLE_DEVICES": "3"}),
        ({"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}, {"CUDA_VISIBLE_DEVICES": "MIG-a"}),
        ({"HIP_VISIBLE_DEVICES": "2,3"}, {"HIP_VISIBLE_DEVICES": "2"}),
        ({"ROCR_VISIBLE_DEVICES": "2,3"}, {"CUDA_VISIBLE_DEVICES": "0"}),  # HIP counts within ROCm's list
    ],
)
def test_a_single_rank_sees_one_gpu_and_opens_no_process_group(
    environment: dict[str, str], seen: dict[str, str]
) -> None:
    found = rank_environment(Topology("cuda", 1, "single"), 0, 1234, replace(HERE, environment=environment))
    assert {name: value for name, value in found.items() if name.endswith("VISIBLE_DEVICES")} == seen
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"} & found.keys()


def test_a_single_rank_on_the_cpu_is_shown_nothing() -> None:
    found = rank_environment(Topology("cpu", 1, "single"), 0, 1234, HERE)
    assert not any(name.endswith("VISIBLE_DEVICES") for name in found)


def test_a_rank_keeps_to_the_cores_it_is_given_from_its_start() -> None:
    core = max(os.sched_getaffinity(0))
    around = replace(HERE, near=((core,), ()))
    commands = launch_plan(PAIR, Path("/r"), 1, around=around)
    assert [one.environment.get("SFT_JOB_CPUS") for one in commands] == [str(core), None]
    code = (
        "import os; from job.training.process import bind_to_parent; bind_to_parent(); print(os.sched_getaffinity(0))"
    )
    for one, kept in zip(commands, ({core}, os.sched_getaffinity(0)), strict=True):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **one.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(kept)
