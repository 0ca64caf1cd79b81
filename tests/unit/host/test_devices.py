"""What a machine has is what its scheduler shows of it."""

from pathlib import Path

import pytest

from job.host.devices import promised_gpus, visible_gpus
from tests.unit.host.machines import amd_machine, nvidia_devices


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
    assert visible_gpus(environment, nvidia_devices(tmp_path, 4)) == visible


def test_a_list_without_devices_shows_none(tmp_path: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,1"}, nvidia_devices(tmp_path, 0)) == 0
    assert visible_gpus({}, nvidia_devices(tmp_path, 0)) == 0


def test_only_the_device_files_of_gpus_count(tmp_path: Path) -> None:
    assert visible_gpus({}, nvidia_devices(tmp_path, 2, first=3)) == 2


def test_cudas_own_list_comes_before_amds(tmp_path: Path) -> None:
    environment = {"ROCR_VISIBLE_DEVICES": "0,1,2", "CUDA_VISIBLE_DEVICES": "1"}
    assert visible_gpus(environment, nvidia_devices(tmp_path, 4)) == 1


def test_an_amd_gpu_counts_where_its_device_file_is_granted_and_a_processor_never(tmp_path: Path) -> None:
    assert visible_gpus({}, amd_machine(tmp_path, 8, granted=2)) == 2
    assert visible_gpus({"ROCR_VISIBLE_DEVICES": "1"}, tmp_path) == 1
    assert visible_gpus({"HIP_VISIBLE_DEVICES": ""}, tmp_path) == 0


def test_without_the_compute_drivers_file_a_render_node_is_no_gpu_to_train_on(tmp_path: Path) -> None:
    (amd_machine(tmp_path, 1) / "dev/kfd").unlink()
    assert visible_gpus({}, tmp_path) == 0


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
