"""Names under `trl` and `peft`: passed on, or refused with a reason; never silently ignored.

What is passed on must reach the training as the user means it. Fields of the installed SFTConfig and LoraConfig are
read from their source, so that nothing heavy is imported to check a name.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pydantic import JsonValue

from job.config.mistakes import Mistake
from job.config.suggest import did_you_mean
from job.config.synonyms import explained


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OWN_BATCHING = "our loss and batching go past it"
_SET_HERE = "sft-job sets it"
TRL_PASSED = _words(
    "lr_scheduler_kwargs adam_beta1 adam_beta2 adam_epsilon torch_compile torch_compile_backend torch_compile_mode "
    "log_level log_level_replica full_determinism ddp_bucket_cap_mb ddp_static_graph ddp_timeout debug"
)
TRL_WITHOUT_EFFECT = {
    **dict.fromkeys(
        _words(
            "label_smoothing_factor loss_type router_aux_loss_coef use_liger_kernel liger_kernel_config "
            "activation_offloading "
            "average_tokens_across_devices torch_empty_cache_steps include_num_input_tokens_seen"
        ),
        _OWN_BATCHING,
    ),
    **dict.fromkeys(
        _words(
            "eval_accumulation_steps eval_do_concat_batches eval_use_gather_object include_for_metrics "
            "batch_eval_metrics"
        ),
        "our evaluation goes past it",
    ),
    **dict.fromkeys(_words("optim_args optim_target_modules"), "none of the values of train.optim reads it"),
    **dict.fromkeys(
        _words(
            "tf32 gradient_checkpointing_kwargs activation_checkpointing_kwargs ddp_find_unused_parameters "
            "ddp_broadcast_buffers"
        ),
        _SET_HERE,
    ),
    "neftune_noise_alpha": "its noise would differ between layouts and after resuming",
    "logging_nan_inf_filter": "a loss that is not finite stops the job",
    "skip_memory_metrics": "nothing shows these figures",
}
# Where ours has the same name as theirs: it is refused under `trl`, and named.
TRL_OWN = {
    **{name: f"data.{name}" for name in ("max_length",)},
    **{
        name: f"train.{name}"
        for name in _words(
            "max_steps learning_rate lr_scheduler_type warmup_steps optim weight_decay "
            "max_grad_norm eval_steps "
            "logging_steps gradient_checkpointing seed"
        )
    },
    "trust_remote_code": "model.trust_remote_code",
}
PEFT_PASSED = _words(
    "exclude_modules fan_in_fan_out bias init_lora_weights layers_to_transform layers_pattern rank_pattern "
    "alpha_pattern "
    "trainable_token_indices layer_replication lora_bias target_parameters ensure_weight_tying"
)
PEFT_OWN = {
    "r": "lora.r",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    **{name: f"lora.{name}" for name in ("target_modules", "modules_to_save", "use_dora", "use_rslora")},
    "base_model_name_or_path": "model.base",
    "revision": "model.base",
}
_CHANGES_BASE = "it changes the base's weights, which a checkpoint does not hold"
PEFT_WITHOUT_EFFECT = {
    **dict.fromkeys(_words("task_type peft_type auto_mapping peft_version inference_mode"), _SET_HERE),
    **dict.fromkeys(_words("loftq_config eva_config corda_config lora_ga_config kasa_config"), _CHANGES_BASE),
    **dict.fromkeys(_words("monteclora_config alora_invocation_tokens arrow_config"), _OWN_BATCHING),
    **dict.fromkeys(_words("use_qalora qalora_group_size"), "it needs a quantized base"),
    **dict.fromkeys(
        _words("megatron_config megatron_core use_bdlora runtime_config velora_config"), "training here does not use it"
    ),
}
_PLAIN_INIT = (True, False, "gaussian", "orthogonal")


def trl_mistakes(given: Mapping[str, JsonValue]) -> Iterator[Mistake]:
    """What cannot stand under `trl`."""
    for name in given:
        if text := _refusal(name, TRL_PASSED, TRL_OWN, TRL_WITHOUT_EFFECT, sft_config_fields, "SFTConfig"):
            yield Mistake(("trl", name), text)


def peft_mistakes(given: Mapping[str, JsonValue], with_lora: bool) -> Iterator[Mistake]:
    """What cannot stand under `peft`."""
    if given and not with_lora:
        yield Mistake(("peft",), "has no effect without lora; write lora: {}, or leave it out", also=(("lora",),))
    for name, value in given.items():
        if text := _refusal(name, PEFT_PASSED, PEFT_OWN, PEFT_WITHOUT_EFFECT, lora_config_fields, "LoraConfig"):
            yield Mistake(("peft", name), text)
        elif name == "init_lora_weights" and value not in _PLAIN_INIT:
            yield Mistake(("peft", name), f"{value} is refused: {_CHANGES_BASE}; write true, gaussian or orthogonal")


def _refusal(
    name: str, passed: frozenset[str], own: Mapping[str, str], idle: Mapping[str, str], installed: "_Fields", kind: str
) -> str | None:
    if name in own:
        return f"sft-job owns it; write {own[name]}"
    if name in idle:
        return f"would have no effect here: {idle[name]}; leave it out"
    known = installed()
    if name in passed and (not known or name in known):
        return None
    if explanation := explained(name):
        return f"sft-job owns it; {explanation}"
    if name in known:
        return None
    return f"is no field of {kind}{did_you_mean(name, passed & known or passed)}"


class _Fields:
    """The field names of a dataclass and its bases in files of an installed package; empty where they are not found."""

    def __init__(self, *files: tuple[str, str, tuple[str, ...]]) -> None:
        self._files = files

    def __call__(self) -> frozenset[str]:
        return _read(self._files)


@cache
def _read(files: tuple[tuple[str, str, tuple[str, ...]], ...]) -> frozenset[str]:
    names: set[str] = set()
    for package, inner, classes in files:
        spec = importlib.util.find_spec(package)  # of a top-level package: finds it without importing it
        folders = list(spec.submodule_search_locations or []) if spec else []
        path = next((found for folder in folders if (found := Path(folder) / inner).is_file()), None)
        if path is None:
            return frozenset()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name in classes:
                names |= {
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign)
                    and isinstance(line.target, ast.Name)
                    and not line.target.id.startswith("_")
                }
    return frozenset(names)


sft_config_fields = _Fields(
    ("transformers", "training_args.py", ("TrainingArguments",)),
    ("trl", "trainer/base_config.py", ("_BaseConfig",)),
    ("trl", "trainer/sft_config.py", ("SFTConfig",)),
)
lora_config_fields = _Fields(
    ("peft", "config.py", ("PeftConfigMixin", "PeftConfig")),
    ("peft", "tuners/lora/config.py", ("LoraConfig",)),
)
