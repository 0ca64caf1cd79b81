"""A run folder as the supervisor leaves it to its ranks, on a model made on the spot, and ranks started on it."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job import tiny
from job.config import RunConfig
from job.host.launch_plan import rank_environment
from job.host.topology import Topology
from job.rundir import Prepare, RunDir, Spec
from tests.harness import ROOT, environment
from tests.servers import free_port

RANKS_SECONDS = 1800.0


def make_base(folder: Path, hidden: int, layers: int) -> Path:
    before = tiny.HIDDEN, tiny.LAYERS
    tiny.HIDDEN, tiny.LAYERS = hidden, layers
    try:
        return tiny.make(folder)
    finally:
        tiny.HIDDEN, tiny.LAYERS = before


def prepared(root: Path, fields: Mapping[str, Any]) -> RunDir:
    """`root` holds `base`; a fresh start of the demo's chats in `root`/run, tokenized."""
    chat = tiny.write_demo_chat(root / "chat.jsonl")
    config = RunConfig.from_dict(
        {
            "run": str(root / "never"),
            "model": {"base": str(root / "base")},
            "data": {"train": [str(chat)], "max_length": 64},
            "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
            "train": {"global_batch_size": 8, "learning_rate": 1e-3, "token_budget": 1024},
            "parallel": {"device": "cpu"},
            "checkpoint": {"every": "1000000 steps"},
        }
    ).replace(dict(fields))
    run = RunDir(root / "run").make()
    for place in (run.base, run.tokenizer):
        place.symlink_to(root / "base")
    source = {"uri": str(chat), "path": str(chat), "format": None, "columns": None, "loss": None}
    Prepare(config.to_dict(), [source], []).write(run)
    command = [sys.executable, "-m", "job.prepare", str(run.path)]
    subprocess.run(command, cwd=ROOT, env=environment(root), check=True, timeout=120)
    Spec(config.to_dict(), 1, "bench", "base", None, wait_seconds=60).write(run)
    return run


def ranks(module: str, arguments: Sequence[str], count: int, home: Path) -> None:
    """`python -m MODULE ARGUMENTS` on `count` ranks of this machine, to their end."""
    machine, port = Topology("cpu", count, "ddp" if count > 1 else "single"), free_port()
    logs = [home / f"rank-{rank}.log" for rank in machine.ranks]
    started = []
    try:
        for rank, log in zip(machine.ranks, logs, strict=True):
            with log.open("wb") as said:
                place = {**environment(home), **rank_environment(machine, rank, port), "OMP_NUM_THREADS": "1"}
                command = [sys.executable, "-m", module, *arguments]
                started.append(subprocess.Popen(command, env=place, cwd=ROOT, stdout=said, stderr=said))
        codes = [process.wait(RANKS_SECONDS) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert codes == [0] * count, f"{codes}\n" + "\n".join(log.read_text(errors="replace")[-2000:] for log in logs)
