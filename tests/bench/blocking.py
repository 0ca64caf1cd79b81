"""How long a checkpoint blocks the training loop: ours, one memcpy of as many bytes, transformers' own save.

In turns, at the boundary after a real AdamW step, in one process or on ranks under DDP over gloo, where rank 0 takes
the snapshots and the others wait in the next step's reduction. Each measured one begins when all before is on disk.
Run as `python -m tests.bench.blocking STATE_MB TENSORS REPEATS RANKS`; prints the seconds as JSON.
"""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import environment
from tests.servers import free_port

ROWS = 256  # of each weight
BYTES_PER_PARAMETER = 12  # fp32: itself and AdamW's two moments


@dataclass
class Blocking:
    """Seconds, one for each repeat."""

    state_bytes: int = 0
    ranks: int = 1
    ours: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)  # Trainer._save_checkpoint; not measured under DDP
    written: list[float] = field(default_factory=list)  # on the thread, until it is on disk


def measured(state_mb: int, tensors: int, repeats: int, ranks: int) -> Blocking:
    """In processes of their own, so that the memory is free for the next size."""
    command = [sys.executable, "-m", "tests.bench.blocking", *map(str, (state_mb, tensors, repeats, ranks))]
    with tempfile.TemporaryDirectory() as folder:
        world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        places = [environment(Path(folder), {**world, "RANK": str(rank)}) for rank in range(ranks)]
        started = [subprocess.Popen(command, env=place, stdout=subprocess.PIPE, cwd=folder) for place in places]
        said = [process.communicate()[0] for process in started]
    assert all(process.returncode == 0 for process in started)
    return Blocking(**json.loads(said[0].splitlines()[-1]))


def rank(state_mb: int, tensors: int, repeats: int) -> Blocking:
    import torch
    from torch import distributed

    from job.rundir import RunDir
    from job.training.capture import Capturer
    from job.training.snapshot_writer import SnapshotWriter

    number, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))
    columns = state_mb * 10**6 // BYTES_PER_PARAMETER // tensors // ROWS
    model: Any = torch.nn.ModuleList([torch.nn.Linear(columns, ROWS, bias=False) for _ in range(tensors)])
    whole = Whole(model)
    if ranks > 1:
        distributed.init_process_group("gloo")
        whole = torch.nn.parallel.DistributedDataParallel(whole)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    found = Blocking(sum(parameter.nbytes * 3 for parameter in model.parameters()), ranks)

    def step() -> None:
        whole(torch.ones(1, columns)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    if number > 0:
        for _ in range(1 + repeats * (3 if ranks == 1 else 2)):
            step()
        distributed.barrier()
        return found
    folder = Path.cwd()
    writer = SnapshotWriter(RunDir(folder / "run").make(), lambda step, seconds: found.written.append(seconds))
    writer.begin(Capturer(model, optimizer))
    source, target = (torch.ones(found.state_bytes, dtype=torch.uint8) for _ in range(2))
    save = theirs(model, optimizer, folder / "theirs") if ranks == 1 else None
    step()
    while writer._preparing:  # the first checkpoint of a run comes many steps later
        time.sleep(0.1)
    for repeat in range(repeats):
        step()
        with clock(found.ours):
            writer.take(2 + repeat * (3 if ranks == 1 else 2), [])
        writer.wait()
        step()
        with clock(found.copy):
            ctypes.memmove(target.data_ptr(), source.data_ptr(), found.state_bytes)
        if save is not None:
            step()
            with clock(found.theirs):
                save()
    if ranks > 1:
        distributed.barrier()
    return found


def theirs(model: Any, optimizer: Any, folder: Path) -> Any:
    """transformers' save of the same model and optimizer state; each replaces the one before."""
    import torch
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True, save_total_limit=1, report_to=[])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = Trainer(model=model, args=arguments, optimizers=(optimizer, schedule))

    def save() -> None:
        trainer.state.global_step += 1
        trainer._save_checkpoint(model, None)

    return save


def Whole(model: Any) -> Any:  # noqa: N802 - a module made where torch is imported
    import torch

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, row: Any) -> Any:
            return torch.stack([part(row).sum() for part in self.parts]).sum()

    return Sum()


class clock:  # noqa: N801 - reads as a word of the language
    def __init__(self, into: list[float]) -> None:
        self._into = into

    def __enter__(self) -> None:
        os.sync()  # what was written before is not to be paid for now
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._into.append(time.perf_counter() - self._began)


if __name__ == "__main__":
    state_mb, tensors, repeats, _ = map(int, sys.argv[1:])
    print(json.dumps(asdict(rank(state_mb, tensors, repeats))))
