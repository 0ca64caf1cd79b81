"""What `model.init` names: an adapter, another run's result or full weights; pulled, and held against the config.

Only a run without a commit needs it: from then on the commits hold the tensors.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from job.config import LoraConfig, RunConfig
from job.errors import ConfigError, DataError
from job.storage.model_files import ADAPTER, CONFIG, check_safetensors, module_names, read_json
from job.storage.pull import Pull, Pulled, pull_files, pull_weights, sha256
from job.storage.records import RESULT, RUN, Result

TENSORS = "adapter_model.safetensors"
# Fields of a LoraConfig, beside those with a name of their own, that decide which tensors there are or what they mean.
PATTERNS = (
    "bias", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern",
    "trainable_token_indices", "layer_replication", "lora_bias", "target_parameters",
)  # fmt: skip
PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal")  # others change the base, which an adapter does not hold


@dataclass(frozen=True)
class Initial:
    """`pulled.source` is the very folder that holds the files."""

    kind: Literal["adapter", "full"]
    pulled: Pulled


def pull_initial(source: str, dest: Path, pull: Pull, trust_remote_code: bool = False) -> Initial:
    """An adapter's two files, or a model's, into the folder `dest`; of a run, its result's.

    Raises: DataError where `source` is none of these, is a run without a result, or its files are damaged.
    """
    at = pull.source(source)
    there = pull.ask(at, (RESULT, RUN, ADAPTER, CONFIG))
    if RESULT in there:
        return _of_run(source, dest, pull, trust_remote_code)
    if RUN in there:
        raise DataError(f"{source} is a run that has no result yet; run it to its end first, or fork it")
    if ADAPTER in there:
        return _adapter(source, dest, pull)
    if CONFIG in there:
        return Initial("full", pull_weights(source, dest, pull, trust_remote_code))
    raise at.missing(f"{source} holds no adapter ({ADAPTER}), no run's result ({RESULT}) and no model ({CONFIG})")


def same_initial(before: Mapping[str, str], found: Pulled) -> None:
    """Raises: DataError when it is not what the run began with. Digests of another kind are not compared."""
    for name, digest in before.items():
        kind = digest.split(":")[0]
        now = sha256(found.path / name, lambda: None) if kind == "sha256" and name in found.files else None
        now = now or found.files.get(name, digest)
        if now.split(":")[0] == kind and now != digest:
            raise DataError(
                f"{found.source}/{name} changed since this run began; restore it, or begin anew in another run folder"
            )


def check_initial(config: RunConfig, initial: Initial) -> str | None:
    """Do the config's `lora` and what was pulled agree? Returns a line to be told, or None. Raises: ConfigError."""
    source = initial.pulled.source
    if config.lora is None and initial.kind == "full":
        return None
    if config.lora is not None and initial.kind == "full":
        raise ConfigError(
            f"{source} holds full weights, and lora asks for an adapter; set model.base to it and leave model.init out"
        )
    adapter = read_json(initial.pulled.path / ADAPTER, f"{source}/{ADAPTER}")
    if (kind := adapter.get("peft_type")) != "LORA":
        raise ConfigError(f"{source} is an adapter of the kind {kind}; only LORA can be started from")
    if config.lora is None:
        raise ConfigError(
            f"{source} is an adapter, and lora is null; set {_told(_fields_of(adapter), brief=True)}, "
            "or leave model.init out"
        )
    if (start := adapter.get("init_lora_weights")) not in PLAIN_STARTS:
        raise ConfigError(f"{source} was begun with init_lora_weights {start}, which changed its base: not supported")
    if different := _differences(config.lora, config.peft, adapter, module_names_of(initial.pulled.path)):
        raise ConfigError(f"the adapter in {source} differs from lora: set {_told(different)}, or leave model.init out")
    base = str(adapter.get("base_model_name_or_path") or "")
    if base and _bare(base) != _bare(config.model.base):
        return f"model.init: the adapter in {source} was trained on {base}, this run's base is {config.model.base}"
    return None


def module_names_of(folder: Path) -> set[str]:
    """The modules an adapter's files have a lora_A for, as the base names them."""
    found = {name.partition(".lora_A")[0] for name in module_names(folder) if name.endswith(".lora_A")}
    return {name.removeprefix("base_model.model.") for name in found}


def _of_run(source: str, dest: Path, pull: Pull, trust_remote_code: bool) -> Initial:
    record = pull_files(source, [RESULT], dest.with_name(f"{dest.name}-result"), pull, "result").path / RESULT
    result = Result.parse(record.read_bytes(), f"{source}/{RESULT}")
    if ".." in PurePosixPath(result.folder).parts or result.folder.startswith("/"):
        raise DataError(f"{source}/{RESULT} names the folder {result.folder!r}, which is outside the run")
    folder = f"{source.rstrip('/')}/{result.folder}"
    if result.kind == "adapter":
        initial = _adapter(folder, dest, pull)
    else:
        initial = Initial("full", pull_weights(folder, dest, pull, trust_remote_code))
    recorded = {file.name: f"sha256:{file.sha256}" for file in result.files}
    for name in initial.pulled.files:
        if sha256(initial.pulled.path / name, pull.check) != recorded.get(name):
            raise DataError(f"{folder}/{name} is damaged: {RESULT} names another SHA-256")
    files = {name: recorded[name] for name in initial.pulled.files}
    return Initial(initial.kind, replace(initial.pulled, files=files))


def _adapter(source: str, dest: Path, pull: Pull) -> Initial:
    at = pull.source(source)
    if TENSORS not in pull.ask(at, (TENSORS,)):
        raise at.missing(f"{source} has no {TENSORS}; save the adapter as safetensors, no pickle is opened")
    pulled = pull_files(source, [ADAPTER, TENSORS], dest, pull, "adapter")
    check_safetensors(pulled.path / TENSORS, f"{pulled.source}/{TENSORS}")
    files = {name: sha256(pulled.path / name, pull.check) for name in pulled.files}
    return Initial("adapter", replace(pulled, files=files))


def _fields_of(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter's fields under the config's names."""
    targets = adapter.get("target_modules")
    return {
        "lora.r": adapter.get("r"),
        "lora.alpha": adapter.get("lora_alpha"),
        "lora.target_modules": sorted(targets) if isinstance(targets, list) else targets,
        "lora.modules_to_save": sorted(adapter.get("modules_to_save") or []),
        "lora.use_dora": bool(adapter.get("use_dora")),
        "lora.use_rslora": bool(adapter.get("use_rslora")),
        **{f"peft.{name}": _plain(adapter.get(name)) for name in PATTERNS if _plain(adapter.get(name)) is not None},
    }


def _differences(
    lora: LoraConfig, peft: Mapping[str, Any], adapter: Mapping[str, Any], modules: set[str]
) -> dict[str, Any]:
    """{field: what the adapter has} where the config has something else. `all-linear` is left to the rank."""
    theirs = _fields_of(adapter)
    ours: dict[str, Any] = {
        "lora.r": lora.r,
        "lora.alpha": lora.alpha,
        "lora.target_modules": theirs["lora.target_modules"],
        "lora.modules_to_save": sorted(lora.modules_to_save),
        "lora.use_dora": lora.use_dora,
        "lora.use_rslora": lora.use_rslora,
        **{f"peft.{name}": _plain(value) for name, value in peft.items() if name in PATTERNS},
    }
    wanted = lora.target_modules if isinstance(lora.target_modules, str) else sorted(lora.target_modules)
    if wanted not in ("all-linear", theirs["lora.target_modules"]) and modules and not _same_targets(wanted, modules):
        ours["lora.target_modules"] = wanted
    return {path: theirs.get(path) for path in {**theirs, **ours} if theirs.get(path) != ours.get(path)}


def _same_targets(wanted: str | list[str], modules: set[str]) -> bool:
    """As far as it can be told without the model: each side covers the other, by peft's rule for names."""
    if isinstance(wanted, str):
        return all(re.fullmatch(wanted, module) for module in modules)
    hits = {target: {m for m in modules if m == target or m.endswith(f".{target}")} for target in wanted}
    return all(hits.values()) and set().union(*hits.values()) == modules


def _plain(value: Any) -> Any:
    """None for what stands for nothing: {}, [], False, "none"."""
    return value if value and value != "none" else None


def _told(fields: Mapping[str, Any], brief: bool = False) -> str:
    """`brief`: without what is so by default."""
    shown = {path: value for path, value in fields.items() if not (brief and value in ([], False))}
    return ", ".join(
        f"{path}: {value if isinstance(value, str) else json.dumps(value)}" for path, value in shown.items()
    )


def _bare(base: str) -> str:
    return base.removeprefix("hf://").partition("@")[0].rstrip("/")
