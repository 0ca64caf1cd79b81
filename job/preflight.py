"""Mistakes that are found before the run is claimed: a missing extra, no room, LoRA targets that are nowhere."""

import importlib.util
import shutil
from typing import Protocol

from job.config import RunConfig
from job.errors import ConfigError, HardwareError
from job.rundir import RunDir
from job.storage.model_files import module_names

ROOM_BYTES = 64 << 20


class Told(Protocol):
    """Whoever hears what is no error."""

    def message(self, text: str) -> None: ...


def check_installed(config: RunConfig) -> None:
    """Before anything is pulled: is the optimizer asked for installed? Raises: ConfigError."""
    if config.train.optim == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optim adamw_8bit needs bitsandbytes: pip install 'sft-job[bnb]', or set train.optim: adamw"
        )


def check_room(run: RunDir) -> None:
    """Room for what passes between the processes, whatever is read in place. Raises: HardwareError."""
    free = shutil.disk_usage(run.path).free
    if free < ROOM_BYTES:
        raise HardwareError(
            f"a run needs {ROOM_BYTES >> 20} MB free below {run.path.parent} even if nothing is pulled, "
            f"{free >> 20} MB are; free some, or set SFT_JOB_HOME to a larger disk"
        )


def check_lora_targets(config: RunConfig, run: RunDir, listener: Told) -> None:
    """Listed targets are looked for among the weights' names: the rank would find out only after the claim.

    Patterns are left to the rank, and so are models with experts, whose layers are renamed when they are loaded.
    Raises: ConfigError when no target is there; one of several is only told.
    """
    if config.lora is None or isinstance(config.lora.target_modules, str):
        return
    modules = module_names(run.base)
    if not modules or any("expert" in name for name in modules):
        return
    lost = [
        target
        for target in config.lora.target_modules
        if not any(name == target or name.endswith(f".{target}") for name in modules)
    ]
    if not lost:
        return
    there = ", ".join(sorted({name.rpartition(".")[2] for name in modules if "emb" not in name}))
    text = f"lora.target_modules: {config.model.base} has no {' and no '.join(lost)}; there are {there}"
    if len(lost) == len(config.lora.target_modules):
        raise ConfigError(text)
    listener.message(text)
