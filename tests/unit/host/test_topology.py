"""What a machine has is what its scheduler shows of it; GPUs that were asked for and are not there end the run."""

from pathlib import Path

import pytest

from job.config import RunConfig
from job.errors import ExitCode, HardwareError
from job.host import topology as module
from job.host.topology import Topology, promised_gpus, topology, visible_gpus


def devices(folder: Path, count: int, first: int = 0) -> Path:
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-caps", "null"):
        (folder / name).touch()
    for number in range(first, first + count):
        (folder / f"nvidia{number}").touch()
    return folder


@pytest.mark.parametrize(
    ("listed", "visible"),
    [
        (None, 4),
        ("", 0),
        ("0", 1),
        ("0,1", 2),
        (" 2 , 3 ", 2),
        ("-1", 0),
        ("0,-1,1", 1),
        ("NoDevFiles", 0),
        ("0,,1", 1),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1", 2),
        ("MIG-GPU-8932f937/1/0", 1),
    ],
)
def test_a_list_is_read_as_cuda_reads_it(tmp_path: Path, listed: str | None, visible: int) -> None:
    environment = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert visible_gpus(environment, devices(tmp_path, 4)) == visible


def test_a_list_without_devices_shows_none(tmp_path: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, devices(tmp_path, 0)) == 0
    assert visible_gpus({}, devices(tmp_path, 0)) == 0


def test_only_the_device_files_of_gpus_count(tmp_path: Path) -> None:
    assert visible_gpus({}, devices(tmp_path, 2, first=3)) == 2


def test_cudas_own_list_comes_before_amds(tmp_path: Path) -> None:
    environment = {"ROCR_VISIBLE_DEVICES": "0,1,2", "CUDA_VISIBLE_DEVICES": "1"}
    assert visible_gpus(environment, devices(tmp_path, 4)) == 1


@pytest.mark.parametrize(
    ("environment", "promised"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "5"}, False),
        ({"SLURM_GPUS_ON_NODE": "2"}, True),
        ({"SLURM_GPUS_ON_NODE": "0"}, False),
        ({"SLURM_JOB_GPUS": "0,1"}, True),
        ({"SLURM_STEP_GPUS": "0"}, True),
        ({"SLURM_STEP_GPUS": ""}, False),
        ({"SLURM_JOB_GPUS": "NoDevFiles"}, False),
    ],
)
def test_what_slurm_granted_is_known(environment: dict[str, str], promised: bool) -> None:
    assert promised_gpus(environment) is promised


@pytest.mark.parametrize(
    ("gpus", "fields", "expected"),
    [
        (0, {}, Topology("cpu", 1, "single")),
        (1, {}, Topology("cuda", 1, "single")),
        (4, {}, Topology("cuda", 4, "ddp")),
        (4, {"nproc_per_node": 2}, Topology("cuda", 2, "ddp")),
        (4, {"nproc_per_node": 1}, Topology("cuda", 1, "single")),
        (4, {"strategy": "single"}, Topology("cuda", 1, "single")),
        (4, {"device": "cpu"}, Topology("cpu", 1, "single")),
        (0, {"nproc_per_node": 3}, Topology("cpu", 3, "ddp")),
        (1, {"device": "cuda"}, Topology("cuda", 1, "single")),
    ],
)
def test_as_many_ranks_as_gpus_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, gpus: int, fields: dict[str, object], expected: Topology
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(module, "promised_gpus", lambda: False)
    assert topology(config(fields)) == expected


@pytest.mark.parametrize(
    ("gpus", "promised", "fields", "named"),
    [
        (0, False, {"device": "cuda"}, "parallel.device is cuda"),
        (0, True, {}, "the scheduler granted GPUs"),
        (2, True, {"nproc_per_node": 4}, "4, but 2 GPUs"),
    ],
)
def test_gpus_that_were_asked_for_and_are_missing_are_never_a_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpus: int, promised: bool, fields: dict[str, object], named: str
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: gpus)
    monkeypatch.setattr(module, "promised_gpus", lambda: promised)
    with pytest.raises(HardwareError, match=named) as caught:
        topology(config(fields))
    assert caught.value.exit_code == ExitCode.HARDWARE


def test_the_cpu_may_be_chosen_though_gpus_were_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "promised_gpus", lambda: True)
    assert topology(config({"device": "cpu"})).device == "cpu"


def config(parallel: dict[str, object]) -> RunConfig:
    return RunConfig.from_dict(
        {"run": "/r", "model": {"base": "/b"}, "data": {"train": ["/d.jsonl"]}, "lora": {}, "parallel": parallel}
    )
