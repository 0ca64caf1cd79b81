"""Fixed plans of real shapes, and the golden files made of one.

Run as `python -m tests.planning` it writes the golden files anew: look at them before you keep them.
"""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from job.config import RunConfig
from job.foreseen import Foreseen
from job.host.elsewhere import planned_machine
from job.host.forecast import Measured
from job.host.shape import Shape
from job.planned import planned
from job.planning import Plan
from job.report.plan import show
from job.sampling import Amount
from tests.shapes import QWEN3_8B, shape

ROOT = Path(__file__).parents[1]
GOLDEN_TEXT, GOLDEN_JSON = (ROOT / "tests" / "golden" / name for name in ("plan.txt", "plan.json"))
ROWS = Amount(52_000, 18_200_000, False, "estimated from 262 kB of the data, by the run's tokenizer", 61_000_000)


def run_config(**sections: Any) -> RunConfig:
    model = {"base": "s3://models/qwen3-8b", "precision": "bf16", **sections.pop("model", {})}
    tree = {"run": "s3://runs/chat", "model": model, "data": {"train": ["s3://data/chat.jsonl"]}, "lora": None}
    return RunConfig.from_dict({**tree, **sections})


def foreseen(of: Shape, **more: Any) -> Foreseen:
    return Foreseen("s3://models/qwen3-8b", of, of.stored_bytes, more.pop("amount", ROWS), ROWS.pulled_bytes, **more)


def plan_of(
    config: RunConfig, spelled: str = "8xH100-80", nodes: int = 1, of: Shape | None = None, **more: Any
) -> Plan:
    at, devices = planned_machine(config, spelled, nodes)
    asked = {name: more.pop(name) for name in ("launch", "deepspeed") if name in more}
    return planned(config, foreseen(of or shape(QWEN3_8B), **more), at, devices, **asked)


def golden() -> Plan:
    """Full fine-tuning of 8 B parameters on two nodes, as a run that has begun: everything on the page."""
    config = run_config(train={"global_batch_size": 128}, grace="2m")
    measured = Measured(step_seconds=6.5, blocked_seconds=4.25, written_seconds=None)
    counted = Amount(51_874, 18_061_000, True, "counted in the run's prepared rows", 0)
    return plan_of(config, nodes=2, amount=counted, begun=True, done=400, measured=measured, deepspeed=True)


def page(plan: Plan, width: int = 100) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, color_system=None, legacy_windows=False), plan)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def write() -> None:
    plan = golden()
    GOLDEN_TEXT.write_text(page(plan), encoding="utf-8")
    GOLDEN_JSON.write_text(json.dumps(plan, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
