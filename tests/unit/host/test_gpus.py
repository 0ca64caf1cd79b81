"""A machine's GPUs, from a stand-in of the driver's tool with its real answers, and from short names."""

from pathlib import Path

import pytest

from job.errors import ConfigError, ExitCode
from job.host import gpus as module
from job.host.gpus import KNOWN, Gpu, computes_bf16, gpus, machine
from tests.unit.host.machines import amd_machine

MIB = 1 << 20
FOUR = """NVIDIA H100 80GB HBM3, 81559, 9.0, 0, GPU-aa11-1
NVIDIA H100 80GB HBM3, 81559, 9.0, 1, GPU-bb22-2
Tesla V100-SXM2-32GB, 32768, 7.0, 2, GPU-cc33-3
NVIDIA Old One, 12000, [N/A], 3, GPU-dd44-4
"""
SLICES = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa11-1)
  MIG 3g.40gb     Device  0: (UUID: MIG-0001)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-0002)
"""
H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 * MIB, True)
V100 = Gpu("Tesla V100-SXM2-32GB", 32768 * MIB, False)


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int = 0) -> None:
    """`nvidia-smi`, which names no GPU that CUDA_VISIBLE_DEVICES hides from it."""
    (folder / "answer").write_text(answer)
    script = folder / "nvidia-smi"
    script.write_text(f'#!/bin/sh\n[ -z "$CUDA_VISIBLE_DEVICES" ] && cat "{folder}/answer"\nexit {code}\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (None, ["NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "Tesla V100-SXM2-32GB", "NVIDIA Old One"]),
        ("2,0", ["Tesla V100-SXM2-32GB", "NVIDIA H100 80GB HBM3"]),
        ("GPU-cc33-3", ["Tesla V100-SXM2-32GB"]),
        ("GPU-cc", ["Tesla V100-SXM2-32GB"]),
        ("2,-1,0", ["Tesla V100-SXM2-32GB"]),
        ("", []),
        ("9", []),
    ],
)
def test_the_gpus_at_hand_are_those_of_the_list_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str | None, expected: list[str]
) -> None:
    tool(tmp_path, monkeypatch, FOUR)
    environment = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert [gpu.name for gpu in gpus(environment)] == expected


def test_memory_and_bf16_are_the_drivers_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus({"CUDA_VISIBLE_DEVICES": "0,2"}) == [H100, V100]
    assert gpus() == [H100] and computes_bf16()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert not computes_bf16()
    assert gpus({"CUDA_VISIBLE_DEVICES": "3"})[0].bf16, "what the tool does not know is assumed"


def test_a_mig_slice_has_the_memory_of_its_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tmp_path, monkeypatch, SLICES)
    small, large = gpus({"CUDA_VISIBLE_DEVICES": "MIG-0002,MIG-0001"})
    assert (small.name, large.name) == ("NVIDIA H100 80GB HBM3 MIG 1g.10gb+me", "NVIDIA H100 80GB HBM3 MIG 3g.40gb")
    assert 9 << 30 < small.memory_bytes < 10 << 30 and 37 << 30 < large.memory_bytes < 40 << 30
    assert small.bf16


def test_a_tool_that_is_missing_or_fails_shows_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpus({}) == []
    tool(tmp_path, monkeypatch, FOUR, code=9)
    assert gpus({}) == []


def test_amds_gpus_are_read_from_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = amd_machine(tmp_path, 3)
    nodes = module.amd_nodes
    monkeypatch.setattr(module, "amd_nodes", lambda: nodes(root))
    assert gpus({}) == [Gpu("gfx942", 192 << 30, True)] * 3
    assert len(gpus({"ROCR_VISIBLE_DEVICES": "2,0"})) == 2


# ---- machines that are not at hand


@pytest.mark.parametrize(
    ("spelled", "count", "least_gib", "bf16"),
    [
        ("8xH100-80", 8, 79, True),
        ("8xH100", 8, 79, True),
        ("1xa100-40", 1, 39, True),
        ("H200", 1, 140, True),
        ("4xV100-16", 4, 15, False),
        ("2xT4", 2, 14, False),
        ("2xL4-24", 2, 22, True),
        ("16xSomething-123GB", 16, 122, True),
    ],
)
def test_a_short_name_stands_for_a_machine(spelled: str, count: int, least_gib: int, bf16: bool) -> None:
    found = machine(spelled)
    assert len(found) == count and len(set(found)) == 1
    assert least_gib << 30 <= found[0].memory_bytes < (least_gib + 2) << 30
    assert found[0].bf16 is bf16


@pytest.mark.parametrize(
    "spelled", ["", "8x", "0xH100", "H100-", "8xH100-0", "8*H100", "-80", "Something", "8xH100 80"]
)
def test_what_names_no_machine_is_refused_with_the_spelling(spelled: str) -> None:
    with pytest.raises(ConfigError, match="COUNTxNAME-GB, like 8xH100-80") as caught:
        machine(spelled)
    assert caught.value.exit_code == ExitCode.CONFIG and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spelled", "mib"),
    [
        ("H100-80", 81559),
        ("A100-40", 40960),
        ("L4-24", 23034),
        ("L40S-48", 46068),
        ("T4-16", 15360),
        ("A10G-24", 23028),
    ],
)
def test_the_memory_promised_is_what_drivers_show_within_a_percent_and_not_more(spelled: str, mib: int) -> None:
    assert 0.99 <= machine(spelled)[0].memory_bytes / (mib * MIB) <= 1.002


def test_all_known_names_are_spelled_as_they_are_looked_up() -> None:
    assert all(machine(name)[0].bf16 == bf16 for name, (_, _, bf16) in KNOWN.items())
