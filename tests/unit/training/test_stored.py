"""Only rank 0 has the files: the others are told every tensor, and all hear of a mismatch. Real gloo ranks."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from job.host.launcher import free_port
from job.training.stored import Stored

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys
from pathlib import Path
import torch, torch.distributed as dist
from job.errors import DataError
from job.training.snapshot import check_same
from job.training.stored import Stored
dist.init_process_group("gloo")
folder = Path(sys.argv[1]) if dist.get_rank() == 0 else Path("/nowhere")
stored = Stored(folder / "tensors", shared=True)
print(sorted((name, str(dtype), shape) for name, (dtype, shape) in stored.shapes.items()))
print(stored.tensor("b").tolist(), stored.tensor("a").dtype)
try:
    check_same(stored, {"a": [3], "b": [2, 2]})
except DataError as error:
    print(error)
"""


def test_the_others_are_told_what_rank_0_reads(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, dtype=torch.uint8), "b": torch.ones(2, 2)}, tmp_path / "tensors")
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, port in ((0, str(port)), (1, str(port)))
    ]
    one, other = (process.communicate(timeout=120)[0] for process in started)
    assert (
        one
        == other
        == (
            "[('a', 'torch.uint8', [2]), ('b', 'torch.float32', [2, 2])]\n"
            "[[1.0, 1.0], [1.0, 1.0]] torch.uint8\n"
            "the checkpoint's a has shape [2], the model's [3]\n"
        )
    )


def test_who_reads_alone_needs_no_group(tmp_path: Path) -> None:
    save_file({"a": torch.arange(3.0)}, tmp_path / "tensors")
    assert Stored(tmp_path / "tensors").tensor("a").tolist() == [0.0, 1.0, 2.0]
