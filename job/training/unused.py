"""What a run does not use is not imported: libraries import some packages merely because they are installed.

TRL imports wandb, 0.7 CPU seconds in each rank, though figures are the supervisor's to show; peft imports bitsandbytes,
1.2 with the compilers it pulls in, and that looks for kernels on a hub; accelerate imports deepspeed to look whether
the model is one of its engines.
"""

import json
import sys

from job.rundir import RunDir, Spec


def leave_out_unused(run: RunDir) -> None:
    """Call before torch, transformers, trl and peft are imported: to them these packages are then not installed."""
    for name in unused(run):  # None: importing it fails, and find_spec finds nothing
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def unused(run: RunDir) -> list[str]:
    """The installed or missing packages that this attempt's ranks have no use for."""
    config, names = Spec.read(run).config, ["wandb"]
    if not (config["train"]["optim"].endswith("8bit") or config["model"]["quantize"] or _quantized_base(run)):
        names.append("bitsandbytes")
    if not config["parallel"]["strategy"].startswith("zero"):
        names.append("deepspeed")
    return names


def _quantized_base(run: RunDir) -> bool:
    try:
        return bool(json.loads((run.base / "config.json").read_text(encoding="utf-8")).get("quantization_config"))
    except (OSError, ValueError, AttributeError):
        return True  # what is wrong with it is said where the model is loaded
