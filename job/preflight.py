"""Mistakes that are found before the run is claimed: a missing extra, no room, LoRA targets or code not there."""

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Protocol

from job.config import RunConfig
from job.errors import ConfigError, HardwareError
from job.rundir import ALLOW_CODE, RunDir
from job.storage.model_files import module_names

ROOM_BYTES = 64 << 20


class Told(Protocol):
    """Whoever hears what is no error."""

    def message(self, text: str) -> None: ...


def check_installed(config: RunConfig) -> None:
    """Before anything is pulled: is what bitsandbytes does asked for, and is it not installed? Raises: ConfigError."""
    if importlib.util.find_spec("bitsandbytes") is not None:
        return
    for asked, field, instead in (
        (config.train.optim == "adamw_8bit", "train.optim adamw_8bit", "train.optim: adamw"),
        (config.model.quantize is not None, f"model.quantize {config.model.quantize}", "model.quantize: null"),
    ):
        if asked:
            raise ConfigError(f"{field} needs bitsandbytes: pip install 'sft-job[bnb]', or set {instead}")


def check_hooks(config: RunConfig, begun: bool) -> None:
    """May the user's own code run here, and is it there? Who goes on brings the run's copy. Raises: ConfigError."""
    if config.hooks is None:
        return
    if os.environ.get(ALLOW_CODE) != "1":
        raise ConfigError(
            f"hooks: {config.hooks} is code of your own, which is off here; set {ALLOW_CODE}=1 to allow it"
        )
    if not begun and not Path(config.hooks).is_file():
        raise ConfigError(f"hooks: there is no file {config.hooks} on this machine; give the path of a Python module")


def same_hooks(config: RunConfig, run: RunDir) -> None:
    """Raises: ConfigError where the file on this machine is no longer the one that the run began with."""
    if config.hooks is None or not Path(config.hooks).is_file() or not run.hooks.is_file():
        return
    if Path(config.hooks).read_bytes() != run.hooks.read_bytes():
        raise ConfigError(
            f"hooks: {config.hooks} is not what this run began with; put it back, "
            "or give it another name and fork: sft-job fork RUN --to NEW --set hooks=NAME"
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
