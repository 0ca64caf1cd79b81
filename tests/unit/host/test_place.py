"""A node knows its place from whatever launched it; a contradiction is refused with both variables by name."""

import pytest

from job.errors import ConfigError, ExitCode
from job.host.place import Place, place
from job.host.sources import DEFAULT_PORT
from tests.unit.host.launchers import (
    Variables,
    aws_batch,
    indexed_job,
    old_pytorch_job,
    open_mpi,
    pytorch_job,
    slurm,
    slurm_batch_script,
    torchrun,
    trainer_v2,
)

SLURM_PORT = DEFAULT_PORT + 217


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Place()),
        (slurm(1), Place("Slurm", 2, 1, "gpu08", SLURM_PORT)),
        (slurm(3, 4, "1(x4)"), Place("Slurm", 4, 3, "gpu08", SLURM_PORT)),
        (slurm(0, 1, "1"), Place("Slurm")),
        (slurm_batch_script(1), Place()),
        (trainer_v2(1), Place("Kubeflow", 2, 1, "chat-node-0-0.chat", 29500, None, "PET_NPROC_PER_NODE")),
        (trainer_v2(0, 1, "4"), Place("Kubeflow", ranks_per_node=4, ranks_from="PET_NPROC_PER_NODE")),
        (pytorch_job(1), Place("Kubeflow", 2, 1, "chat-master-0", 23456, 8, "PET_NPROC_PER_NODE")),
        (old_pytorch_job(1), Place("Kubeflow", 2, 1, "chat-master-0", 23456, None, "PET_NPROC_PER_NODE")),
        (torchrun(1), Place("torchrun", 2, 1, "10.0.0.1", DEFAULT_PORT)),
        (aws_batch(0), Place("AWS Batch", 2, 0, "127.0.0.1", DEFAULT_PORT)),
        (aws_batch(1), Place("AWS Batch", 2, 1, "10.0.0.7", DEFAULT_PORT)),
        (indexed_job(1), Place("Indexed Job", 2, 1, "chat-0.chat", DEFAULT_PORT)),
        ({"JOB_COMPLETION_INDEX": "3"}, Place()),
        ({**open_mpi(1), "SFT_JOB_LEADER": "n0"}, Place("Open MPI", 2, 1, "n0", DEFAULT_PORT)),
        ({**slurm(1), **torchrun(1)}, Place("Slurm and torchrun", 2, 1, "gpu08", SLURM_PORT)),
    ],
)
def test_each_launcher_tells_nodes_rank_leader_and_port(environment: Variables, expected: Place) -> None:
    assert place(environment) == expected


def test_the_main_node_of_a_batch_job_leads_whatever_its_index_and_no_rank_is_given_twice() -> None:
    places = [place(aws_batch(index, 4, main=2)) for index in range(4)]
    assert [one.node_rank for one in places] == [1, 2, 0, 3]


def test_a_port_other_than_the_launchers_is_where_torchruns_own_store_is_not() -> None:
    assert place(torchrun(1)).port != int(torchrun(1)["MASTER_PORT"])


def test_the_first_of_slurms_list_leads_wherever_a_heterogeneous_step_numbers_its_nodes_otherwise() -> None:
    names = ["gpu08", "gpu09", "gpu10"]
    step = [{**slurm(number, 3), "SLURMD_NODENAME": name} for number, name in enumerate([names[2], *names[:2]])]
    assert {one["SLURMD_NODENAME"]: place(one).node_rank for one in step} == {"gpu08": 0, "gpu09": 1, "gpu10": 2}
    assert {place(one).leader for one in step} == {"gpu08"}


def test_a_name_that_slurms_list_does_not_have_leaves_the_number_to_slurm() -> None:
    assert place({**slurm(1), "SLURMD_NODENAME": "gpu08.example"}).node_rank == 1


def test_each_life_of_a_job_has_a_port_of_its_own() -> None:
    """A process of the last life that Slurm could not kill may still be listening."""
    lives = [place({**slurm(1), "SLURM_RESTART_COUNT": str(life)} if life else slurm(1)).port for life in range(100)]
    assert len(set(lives)) == 100 and lives[0] == SLURM_PORT
    assert all(DEFAULT_PORT <= port < DEFAULT_PORT + 1000 for port in lives)


def test_jobs_of_one_cluster_differ_in_their_ports() -> None:
    assert place(slurm(job="4218")).port == place(slurm(1, job="4218")).port != place(slurm(job="4217")).port


# ---- SFT_JOB_*


OWN = {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": "1"}


@pytest.mark.parametrize(
    ("leader", "host", "port"),
    [
        ("n0", "n0", DEFAULT_PORT),
        ("n0:9000", "n0", 9000),
        ("10.1.2.3:9000", "10.1.2.3", 9000),
        ("fd00::1", "fd00::1", DEFAULT_PORT),
        ("[fd00::1]", "fd00::1", DEFAULT_PORT),
        ("[fd00::1]:9000", "fd00::1", 9000),
    ],
)
def test_machines_that_nobody_launched_together_are_told_by_hand(leader: str, host: str, port: int) -> None:
    assert place({**OWN, "SFT_JOB_LEADER": leader}) == Place("SFT_JOB_NODES", 2, 1, host, port)


def test_the_leader_that_is_told_by_hand_comes_before_the_launchers() -> None:
    assert place({**slurm(1), "SFT_JOB_LEADER": "gpu08-ib"}).leader == "gpu08-ib"
    assert place({**slurm(1), "SFT_JOB_LEADER": "gpu08-ib"}).port == SLURM_PORT


def test_a_jobset_of_a_job_for_each_node_tells_the_rank_by_hand() -> None:
    environment = {**OWN, "SFT_JOB_LEADER": "set-workers-0-0.set", "JOB_COMPLETION_INDEX": "0"}
    assert place(environment).node_rank == 1


def test_a_launcher_completes_what_is_told_by_hand() -> None:
    assert place({**slurm(1), "SFT_JOB_NODES": "2"}) == Place("SFT_JOB_NODES and Slurm", 2, 1, "gpu08", SLURM_PORT)
    assert place({**slurm(1), "SFT_JOB_NODE_RANK": "1"}).nodes == 2


@pytest.mark.parametrize("environment", [slurm(1), slurm(1, tasks="8(x2)"), slurm_batch_script(), torchrun(1, ranks=8)])
def test_one_node_told_by_hand_is_this_machine_alone(environment: Variables) -> None:
    assert place({**environment, "SFT_JOB_NODES": "1"}) == Place("SFT_JOB_NODES")


# ---- contradictions


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({**slurm(1), "SFT_JOB_NODES": "4"}, ["SFT_JOB_NODES says 4", "SLURM_STEP_NUM_NODES says 2"]),
        ({**slurm(1), "SFT_JOB_NODE_RANK": "0"}, ["SFT_JOB_NODE_RANK says 0", "SLURM_NODEID says 1"]),
        ({**slurm(1), **trainer_v2(1, 3)}, ["SLURM_STEP_NUM_NODES says 2", "PET_NNODES says 3"]),
        ({**slurm(1), **aws_batch(0)}, ["SLURM_NODEID says 1", "AWS_BATCH_JOB_NODE_INDEX says 0"]),
        (trainer_v2(2), ["PET_NODE_RANK is 2", "PET_NNODES is 2"]),
        ({**indexed_job(2), "SFT_JOB_NODES": "2"}, ["JOB_COMPLETION_INDEX is 2", "SFT_JOB_NODES is 2"]),
        (
            slurm(0, tasks="8(x2)"),
            ["SLURM_STEP_TASKS_PER_NODE is 8(x2)", "once on each node", "srun --ntasks-per-node=1"],
        ),
        (slurm(0, tasks="1,4"), ["SLURM_STEP_TASKS_PER_NODE is 1,4"]),
        (slurm_batch_script(), ["SLURM_JOB_NUM_NODES is 2", "srun --ntasks-per-node=1", "SFT_JOB_NODES=1"]),
        (torchrun(0, ranks=8), ["LOCAL_WORLD_SIZE is 8", "torchrun --nproc-per-node 1"]),
        (open_mpi(0, ranks=4), ["OMPI_COMM_WORLD_LOCAL_SIZE is 4", "ppr:1:node"]),
        (open_mpi(1), ["OMPI_COMM_WORLD_SIZE is 2", "set SFT_JOB_LEADER"]),
        ({**OWN}, ["SFT_JOB_NODES is 2", "set SFT_JOB_LEADER"]),
        ({"SFT_JOB_NODES": "2", "SFT_JOB_LEADER": "n0"}, ["SFT_JOB_NODES is 2", "set SFT_JOB_NODE_RANK"]),
        ({"SFT_JOB_NODE_RANK": "1"}, ["SFT_JOB_NODE_RANK is 1", "set SFT_JOB_NODES"]),
        ({"SFT_JOB_NODES": "two", **OWN, "SFT_JOB_NODE_RANK": "one"}, ["SFT_JOB_NODE_RANK is 'one'", "whole number"]),
        ({**OWN, "SFT_JOB_NODES": "0"}, ["SFT_JOB_NODES is 0", "at least 1"]),
        ({**OWN, "SFT_JOB_LEADER": "n0:http"}, ["SFT_JOB_LEADER is 'n0:http'"]),
        ({**OWN, "SFT_JOB_LEADER": "http://n0:9000"}, ["SFT_JOB_LEADER is 'http://n0:9000'", "host name or address"]),
        ({**OWN, "SFT_JOB_LEADER": "n0:70000"}, ["SFT_JOB_LEADER is 'n0:70000'"]),
        ({**trainer_v2(1), "PET_NNODES": "1:4"}, ["PET_NNODES is 1:4", "fixed number"]),
        ({"PET_NNODES": "2", "PET_MASTER_ADDR": "n0"}, ["PET_NODE_RANK is not set"]),
    ],
)
def test_a_contradiction_is_one_line_that_names_the_variables(environment: Variables, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        place(environment)
    assert all(words in str(caught.value) for words in named), str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.exit_code == ExitCode.CONFIG
