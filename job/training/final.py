"""The result's files, as plain transformers and peft read them: written under a hidden name, renamed when whole.

They depend on the tensors and the settings alone: the same result gives the same bytes, on any machine.
"""

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import GenerationConfig

from job.training.sample import end_ids

MAX_SHARD_SIZE = "5GB"
# What a base's generation config may only hold where it also samples; older files do, and are refused when written.
SAMPLING_FIELDS = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def write_final(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    base_source: str,
    eos_ids: Sequence[int],
    dtype: torch.dtype | None = None,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Writes the adapter (a `PeftModel`) or the full model, with tokenizer and generation config, as `folder`.

    `base_source` is the base as the user named it; `eos_ids` the trained ends of an answer, listed beside the base's;
    `dtype` the full model's stored dtype (the base's; None: as it is), while adapters keep the dtype they were
    trained in; `state_dict` the model's whole tensors where the model itself holds shards only. Replaces `folder`.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if isinstance(model, PeftModel):
        inner = model.get_base_model()
        _write_adapter(partial, model, base_source, state_dict)
    else:
        inner = model
        _write_model(partial, model, dtype, state_dict)
    _write_tokenizer(partial, tokenizer)
    _write_json(partial / "generation_config.json", _generation_config(inner, tokenizer, eos_ids))
    readable = (partial / "generation_config.json").stat().st_mode
    for path in partial.glob("*.safetensors"):  # written for their owner only, whatever the umask allows
        path.chmod(readable)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)


def base_dtype(base: Path) -> torch.dtype | None:
    """The dtype that most of a base model's bytes are stored in: from its safetensors, else from its config."""
    sizes: dict[str, int] = {}
    for path in sorted(base.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                first, last = tensor["data_offsets"]
                sizes[tensor["dtype"]] = sizes.get(tensor["dtype"], 0) + last - first
    named = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    stored = {named[name]: size for name, size in sizes.items() if name in named}
    if stored:
        return _dtype(max(sorted(stored), key=lambda name: stored[name]))
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return _dtype(config.get("dtype") or config.get("torch_dtype"))


def hub_name(source: str) -> tuple[str, str | None]:
    """(name, revision) as peft's adapter config wants them; a source that is not on the hub stays as it is."""
    if not source.startswith("hf://"):
        return source, None
    name, _, revision = source.removeprefix("hf://").partition("@")
    return name, revision or None


def _dtype(name: str | None) -> torch.dtype | None:
    found = getattr(torch, name, None) if name else None
    return found if isinstance(found, torch.dtype) else None


def _write_adapter(folder: Path, model: Any, base_source: str, state_dict: Mapping[str, torch.Tensor] | None) -> None:
    # save_embedding_layers="auto" would ask the hub about the base, and save_pretrained would leave peft's own card.
    adapter = get_peft_model_state_dict(
        model, state_dict=dict(state_dict) if state_dict is not None else None, save_embedding_layers=False
    )
    tensors = _apart(_cast(adapter, None))
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config[model.active_adapter])
    config.base_model_name_or_path, config.revision = hub_name(base_source)
    config.inference_mode = True
    config.task_type = config.task_type or "CAUSAL_LM"
    _write_json(folder / "adapter_config.json", config.to_dict())


def _write_model(
    folder: Path, model: Any, dtype: torch.dtype | None, state_dict: Mapping[str, torch.Tensor] | None
) -> None:
    tensors = dict(state_dict) if state_dict is not None else model.state_dict()
    own_config, own_generation_config = model.config, model.generation_config
    # save_pretrained writes into the config, and refuses a generation config that holds what older files hold.
    model.config, model.generation_config = copy.deepcopy(own_config), GenerationConfig()
    try:
        model.save_pretrained(folder, state_dict=_cast(tensors, dtype), max_shard_size=MAX_SHARD_SIZE)
    finally:
        model.config, model.generation_config = own_config, own_generation_config
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if dtype is not None:  # the config is read back for the dtype to load in
        config["dtype"] = str(dtype).removeprefix("torch.")
    if "use_cache" in config:
        config["use_cache"] = True  # off during training only
    _write_json(path, config)


def _cast(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """On the CPU and in `dtype`; names that share one tensor still share one, so that tied weights are stored once."""
    made: dict[tuple[Any, ...], torch.Tensor] = {}
    result = {}
    for name, tensor in tensors.items():
        key = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in made or tensor.numel() == 0:
            target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            made[key] = tensor.detach().to("cpu", target).contiguous()
        result[name] = made[key]
    return result


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied tensors each under its own name, as peft writes and reads them: safetensors takes none that share memory."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        result[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    return result


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    if getattr(tokenizer, "is_fast", False):  # cut and padded as the last call was, these would be stored
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    _write_json(path, {name: value for name, value in config.items() if name not in ("is_local", "local_files_only")})


def _generation_config(model: Any, tokenizer: Any, eos_ids: Sequence[int]) -> dict[str, Any]:
    """The base's own, with the trained ends of an answer among those that stop it."""
    config = dict(model.generation_config.to_diff_dict())
    for volatile in ("_from_model_config", "transformers_version"):
        config.pop(volatile, None)
    if not config.get("do_sample"):
        config = {name: value for name, value in config.items() if name not in SAMPLING_FIELDS}
    config["eos_token_id"] = end_ids(model, tokenizer, eos_ids) or None
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = tokenizer.pad_token_id
    config["use_cache"] = True
    return {name: value for name, value in config.items() if value is not None}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")
