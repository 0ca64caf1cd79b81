"""A start from tensors that were trained before: an adapter by name, or full weights for the base's architecture."""

from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from job.errors import ConfigError, DataError

TENSORS = "adapter_model.safetensors"
SHOWN_NAMES = 3


@torch.no_grad()
def start_from_adapter(model: Any, folder: Path, source: str) -> None:
    """Copy the adapter's tensors into the PeftModel's of the same names. All of them, or none.

    Raises: ConfigError when names differ (`lora` targets other modules), DataError when shapes do or it cannot be read.
    """
    ours = get_peft_model_state_dict(model, save_embedding_layers=False)
    try:
        theirs = load_file(folder / TENSORS)
    except Exception as error:  # safetensors has its own; a missing file is an OSError
        raise DataError(f"model.init: {source}/{TENSORS} cannot be read: {error}") from error
    if odd := sorted(ours.keys() ^ theirs.keys()):
        lacks = sorted(ours.keys() - theirs.keys())
        side = f"lacks {_some(lacks)}" if lacks else f"has {_some(odd)} beside this run's"
        raise ConfigError(
            f"model.init: the adapter in {source} {side}; "
            "set lora.target_modules and lora.modules_to_save as it has them"
        )
    for name, tensor in ours.items():
        if theirs[name].shape != tensor.shape:
            raise DataError(
                f"model.init: {name} has shape {list(theirs[name].shape)} in {source} and {list(tensor.shape)} here: "
                "it was trained on another base"
            )
    set_peft_model_state_dict(model, theirs)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more
