"""Ranks are as many as the GPUs of all nodes; GPUs that were asked for and are not there end the run."""

import pytest

from job.config import RunConfig
from job.errors import ConfigError, ExitCode, HardwareError, JobError
from job.host import topology as module
from job.host.topology import Topology, topology
from tests.unit.host.launchers import Variables, pytorch_job, slurm, trainer_v2


def config(parallel: dict[str, object]) -> RunConfig:
    return RunConfig.from_dict(
        {"run": "/r", "model": {"base": "/b"}, "data": {"train": ["/d.jsonl"]}, "lora": {}, "parallel": parallel}
    )


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda environment: request.param)


@pytest.mark.parametrize(
    ("gpus", "fields", "expected"),
    [
        (0, {}, Topology("cpu", 1, "single")),
        (1, {}, Topology("cuda", 1, "single")),
        (4, {}, Topology("cuda", 4, "ddp")),
        (4, {"nproc_per_node": 2}, Topology("cuda", 2, "ddp")),
        (4, {"nproc_per_node": 1}, Topology("cuda", 1, "single")),
        (4, {"strategy": "single"}, Topology("cuda", 1, "single")),
        (4, {"strategy": "zero3"}, Topology("cuda", 4, "zero3")),
        (4, {"device": "cpu"}, Topology("cpu", 1, "single")),
        (0, {"nproc_per_node": 3}, Topology("cpu", 3, "ddp")),
        (1, {"device": "cuda"}, Topology("cuda", 1, "single")),
    ],
    indirect=["gpus"],
)
def test_as_many_ranks_as_gpus_unless_told_otherwise(gpus: None, fields: dict[str, object], expected: Topology) -> None:
    assert topology(config(fields), {}) == expected


@pytest.mark.parametrize(
    ("gpus", "environment", "fields", "expected"),
    [
        (8, slurm(1), {}, Topology("cuda", 8, "ddp", 2, 1, "gpu08", 29688)),
        (1, slurm(1), {}, Topology("cuda", 1, "ddp", 2, 1, "gpu08", 29688)),
        (8, pytorch_job(1, ranks="4"), {}, Topology("cuda", 4, "ddp", 2, 1, "chat-master-0", 23456)),
        (8, trainer_v2(1), {}, Topology("cuda", 8, "ddp", 2, 1, "chat-node-0-0.chat", 29500)),
        # Trainer v2 guesses a rank for each core where there is no GPU
        (0, trainer_v2(1, ranks="16"), {}, Topology("cpu", 1, "ddp", 2, 1, "chat-node-0-0.chat", 29500)),
        (
            0,
            trainer_v2(1, ranks="16"),
            {"nproc_per_node": 2},
            Topology("cpu", 2, "ddp", 2, 1, "chat-node-0-0.chat", 29500),
        ),
    ],
    indirect=["gpus"],
)
def test_several_nodes_have_as_many_ranks_each(
    gpus: None, environment: Variables, fields: dict[str, object], expected: Topology
) -> None:
    found = topology(config(fields), environment)
    assert found == expected
    assert found.world_size == 2 * found.ranks_per_node
    assert list(found.ranks) == list(range(found.ranks_per_node, 2 * found.ranks_per_node))


@pytest.mark.parametrize(
    ("gpus", "environment", "fields", "kind", "named"),
    [
        (0, {}, {"device": "cuda"}, HardwareError, "parallel.device is cuda"),
        (0, {"SLURM_JOB_GPUS": "0"}, {}, HardwareError, "the scheduler granted GPUs"),
        (2, {}, {"nproc_per_node": 4}, HardwareError, "nproc_per_node is 4, but 2 GPUs"),
        (4, pytorch_job(), {}, HardwareError, "PET_NPROC_PER_NODE is 8, but 4 GPUs"),
        (8, pytorch_job(), {"nproc_per_node": 4}, ConfigError, "nproc_per_node is 4, but PET_NPROC_PER_NODE is 8"),
        (8, slurm(), {"strategy": "single"}, ConfigError, "single, but Slurm says 2 nodes"),
    ],
    indirect=["gpus"],
)
def test_what_is_not_there_or_contradicts_itself_ends_the_run_and_never_trains_on_less(
    gpus: None, environment: Variables, fields: dict[str, object], kind: type[JobError], named: str
) -> None:
    with pytest.raises(kind, match=named) as caught:
        topology(config(fields), environment)
    assert caught.value.exit_code == (ExitCode.HARDWARE if kind is HardwareError else ExitCode.CONFIG)


def test_the_cpu_may_be_chosen_though_gpus_were_granted() -> None:
    assert topology(config({"device": "cpu"}), {"SLURM_JOB_GPUS": "0,1"}).device == "cpu"
