"""Cores near a GPU are the kernel's word for exactly that GPU; where it is not clear which it is, there are none."""

from pathlib import Path

import pytest

from job.cores import cores_of, written
from job.host.affinity import cores_near_gpus
from tests.unit.host.machines import amd_machine, nvidia_on_the_bus, put

FIRST, SECOND = (0, 1, 4, 5), (2, 3, 6, 7)
ALL = set(range(8))
BUS = {
    "0000:1b:00.0": ("GPU-aa", 0, "0-1,4-5"),
    "0000:3d:00.0": ("GPU-bb", 0, "0-1,4-5"),
    "0000:ab:00.0": ("GPU-cc", 1, "2-3,6-7"),
}


@pytest.mark.parametrize(
    ("listed", "near"),
    [
        (None, (FIRST, FIRST, SECOND)),
        ("0,1,2", (FIRST, FIRST, SECOND)),
        ("2,0,1", (SECOND, FIRST, FIRST)),
        ("GPU-cc,GPU-aa", (SECOND, FIRST)),
        ("1", ((),)),  # a scheduler may have numbered the one it granted anew
        ("MIG-1", ((),)),
        ("", ()),
    ],
)
def test_each_visible_gpu_has_the_cores_of_its_socket(
    tmp_path: Path, listed: str | None, near: tuple[tuple[int, ...], ...]
) -> None:
    environment = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert cores_near_gpus(environment, ALL, nvidia_on_the_bus(tmp_path, BUS)) == near


def test_cores_that_the_scheduler_did_not_grant_are_left_out(tmp_path: Path) -> None:
    root = nvidia_on_the_bus(tmp_path, BUS)
    assert cores_near_gpus({}, {0, 2, 3}, root) == ((0,), (0,), (2, 3))
    assert cores_near_gpus({}, {2, 3}, root) == ((), (), ()), "none near, or nothing to choose"


def test_where_the_kernel_knows_no_place_or_one_only_nothing_is_said(tmp_path: Path) -> None:
    root = nvidia_on_the_bus(tmp_path, {"0000:00:05.0": ("GPU-aa", -1, "0-7"), "0000:00:06.0": ("GPU-bb", 0, "0-7")})
    assert cores_near_gpus({}, ALL, root) == ((), ())
    assert cores_near_gpus({}, ALL, tmp_path / "nothing") == ()


def test_amds_gpus_are_found_on_the_bus_too(tmp_path: Path) -> None:
    root = amd_machine(tmp_path, 2)
    put(root, {"sys/bus/pci/devices/0000:02:00.0/numa_node": "1\n"})
    put(root, {"sys/bus/pci/devices/0000:02:00.0/local_cpulist": "2-3,6-7\n"})
    assert cores_near_gpus({}, ALL, root) == ((), SECOND)


@pytest.mark.parametrize("text", ["", "3", "0-3", "0-1,4-5,9"])
def test_sets_of_cores_are_written_as_the_kernel_writes_them(text: str) -> None:
    assert written(cores_of(text)) == text
