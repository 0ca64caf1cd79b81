"""How long a snapshot takes to be back on two ranks, of which only the first reads, beside moving its bytes at all.

Ours: every trained tensor and the optimizer's two, by name, from the files to both ranks' model and optimizer. Beside
it, in turns: the same two files read in one go, and their bytes broadcast as one tensor over the same gloo group.
The files were just read, so no disk is measured.
Started as `python -m tests.bench.restoring FOLDER STATE_MB TENSORS REPEATS` on each rank; leaves `restoring.json`.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import rank_folder

BYTES_PER_PARAMETER = 12  # fp32: itself and AdamW's two moments
ROWS = 256  # of each weight
STEP = 3
RECORD = "restoring.json"


@dataclass
class Restoring:
    """Seconds, one for each repeat, until both ranks have it."""

    state_bytes: int = 0
    ours: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)


def measured(state_mb: int, tensors: int, repeats: int) -> Restoring:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, *map(str, (state_mb, tensors, repeats))]
        rank_folder.ranks("tests.bench.restoring", arguments, 2, Path(folder))
        return Restoring(**json.loads((Path(folder) / RECORD).read_text(encoding="utf-8")))


def rank(folder: Path, state_mb: int, tensors: int, repeats: int) -> None:
    import torch
    import torch.distributed as dist

    from job.training.capture import state_of
    from job.training.snapshot import Snapshot, restore_optimizer, restore_parameters, trainable_parameters, write

    dist.init_process_group("gloo")
    leads = dist.get_rank() == 0
    columns = state_mb * 10**6 // BYTES_PER_PARAMETER // tensors // ROWS
    model: Any = torch.nn.ModuleList([torch.nn.Linear(columns, ROWS, bias=False) for _ in range(tensors)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    snapshot = folder / "snapshot"
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(STEP):
        optimizer.step()
    optimizer.zero_grad()
    trainable = {name: parameter.detach() for name, parameter in trainable_parameters(model).items()}
    before = {name: tensor.clone() for name, tensor in trainable.items()} if leads else {}
    if leads:
        write(Snapshot(STEP, trainable, state_of(STEP, trainable_parameters(model), optimizer), []), snapshot)
    found = Restoring(sum(parameter.nbytes * 3 for parameter in model.parameters()))
    files = sorted(snapshot.glob("*.safetensors"))
    size = sum(path.stat().st_size for path in files)

    def ours() -> None:
        restore_parameters(snapshot, model, shared=True)
        restore_optimizer(snapshot, STEP, model, optimizer, shared=True)

    def plain() -> None:
        told = torch.tensor(size if leads else 0)
        dist.broadcast(told, 0)
        data = torch.empty(int(told), dtype=torch.uint8)
        if leads:
            at = 0
            for path in files:
                with path.open("rb") as file:
                    at += file.readinto(data.numpy()[at:])  # type: ignore[attr-defined]
        dist.broadcast(data, 0)

    for repeat in range(repeats + 1):
        for do, into in ((ours, found.ours), (plain, found.plain)):
            dist.barrier()
            begun = time.perf_counter()
            do()
            dist.barrier()
            if repeat:  # the first time memory is new
                into.append(time.perf_counter() - begun)
    if leads:
        assert all(torch.equal(before[name], tensor) for name, tensor in trainable.items())
        (folder / RECORD).write_text(json.dumps(asdict(found)), encoding="utf-8")
    dist.barrier()


if __name__ == "__main__":
    rank(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    os._exit(0)
