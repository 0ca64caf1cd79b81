"""The model that is trained: frozen weights in the compute type, trained ones in fp32; and a probe of its attention."""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from job.config import RunConfig
from job.errors import ConfigError, DataError
from job.training.init import start_from_adapter

CPU_BLOCK = 32  # rows that bitsandbytes packs together
PROBE_TOLERANCE = 0.05  # of the largest logit: far above rounding in bf16, far below another position's logits


def compute_dtype(config: RunConfig, device: str) -> torch.dtype:
    """bf16 or fp32, as the supervisor settled it. Raises: ConfigError where the GPU does not compute bf16."""
    wants = config.model.precision == "bf16"
    if wants and device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("this run computes in bf16, but this GPU cannot; use a newer GPU, or a new run in fp32")
    return torch.bfloat16 if wants else torch.float32


def load_model(path: Path, config: RunConfig, device: str, init: Path | None = None, vocabulary: int = 0) -> Any:
    """The model to train: with LoRA a PeftModel over frozen weights, else every parameter trains. It is on the CPU, a
    quantized one on `device`.

    `path` holds the base; `init`, for a start from it, what `model.init` names: an adapter with LoRA, else weights.
    `vocabulary`: tokens of the tokenizer; where it was given more (`model.add_tokens`), they get embeddings.

    Trainable parameters are fp32 whatever the compute type: bf16 AdamW at 2e-5 does not move a weight of 0.02.
    Adapters are initialised on the CPU from the seed, so that they do not depend on the device.
    Raises: DataError when the folder holds no loadable causal language model, ConfigError when LoRA finds no target.
    """
    frozen_dtype = compute_dtype(config, device) if config.lora else torch.float32
    attention = config.model.attn_implementation
    named, weights = f"model.base {config.model.base}", path
    try:
        more: dict[str, Any] = {}
        if init is not None and config.lora is None:
            more["config"] = AutoConfig.from_pretrained(
                path, trust_remote_code=config.model.trust_remote_code, local_files_only=True
            )
            named, weights = f"model.init {config.model.init}", init
        if config.model.quantize is not None:  # nothing can be moved or cast once it is packed
            more |= {"quantization_config": four_bits(frozen_dtype), "device_map": {"": device}}
        model, report = AutoModelForCausalLM.from_pretrained(
            weights,
            dtype=frozen_dtype,
            attn_implementation=None if attention == "auto" else attention,
            trust_remote_code=config.model.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **more,
        )
    except ImportError as error:
        raise ConfigError(f"model.attn_implementation {attention}: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{named} cannot be loaded: {_first_line(error)}") from error
    if config.model.quantize is not None and device == "cpu":
        _check_blocks(model)
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"{named} lacks {len(missing)} of the weights of the base's config, {missing[0]} first")
    if config.model.add_tokens:
        make_room(model, vocabulary)
    model.config.use_cache = False  # a cache would join packed documents
    if config.lora:
        torch.manual_seed(config.train.seed)
        try:
            model = get_peft_model(model, lora_config(config, embeddings_of(model) if config.model.add_tokens else ()))
        except ValueError as error:
            raise ConfigError(f"lora: {_first_line(error)}") from error
        if init is not None:
            start_from_adapter(model, init, config.model.init or str(init))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def four_bits(compute: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with quantized scales, as QLoRA trains on: T. Dettmers et al., arXiv:2305.14314."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _check_blocks(model: Any) -> None:
    """Raises: ConfigError where bitsandbytes' kernels for the CPU fail on a layer's size."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit" and module.out_features % CPU_BLOCK:
            raise ConfigError(
                f"model.quantize {name} has {module.out_features} outputs, and on a CPU four-bit layers need multiples "
                f"of {CPU_BLOCK}: use a GPU, or model.quantize: null"
            )


def lora_config(config: RunConfig, embeddings: Sequence[str] = ()) -> PeftLoraConfig:
    """`embeddings`: modules that are trained whole because tokens were added; a tied head stays tied."""
    assert config.lora is not None
    lora = config.lora
    whole = list(dict.fromkeys([*lora.modules_to_save, *embeddings]))
    return PeftLoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        modules_to_save=whole or None,
        use_dora=lora.use_dora,
        use_rslora=lora.use_rslora,
        **{**({"ensure_weight_tying": True} if embeddings else {}), **config.peft},
    )


@torch.no_grad()
def make_room(model: Any, vocabulary: int) -> None:
    """Embeddings for `vocabulary` tokens: new ones begin as the mean of the others, whatever machine computes it."""
    before = model.get_input_embeddings().num_embeddings
    if vocabulary <= before:
        return  # many bases have rows to spare
    model.resize_token_embeddings(vocabulary, mean_resizing=False)
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        for tensor in (module.weight, getattr(module, "bias", None)) if module is not None else ():
            if tensor is not None:
                with _gathered(tensor):
                    tensor[before:] = tensor[:before].float().mean(0).to(tensor.dtype)


def _gathered(parameter: torch.Tensor) -> AbstractContextManager[Any]:
    """Whole for a moment where zero3 holds it in parts; what rank 0 writes is kept."""
    if not hasattr(parameter, "ds_id"):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
    return gathered


def embeddings_of(model: Any) -> list[str]:
    """The names, as `modules_to_save` takes them, of what gives tokens their vectors and their logits."""
    tied = model.config.get_text_config().tie_word_embeddings
    modules = [model.get_input_embeddings(), None if tied else model.get_output_embeddings()]
    return [name.rpartition(".")[2] for name, module in model.named_modules() if any(module is one for one in modules)]


def accepts(model: Any, argument: str) -> bool:
    """Does the architecture's forward take `argument`?"""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return argument in inspect.signature(type(inner).forward).parameters


@torch.no_grad()
def keeps_documents_apart(model: Any, device: torch.device, dtype: torch.dtype = torch.float32) -> bool:
    """Whether documents laid end to end, told apart only by restarting position ids, stay blind to each other.

    Another first document must not change one bit of the second's logits, and these must be (nearly) those of the
    second document alone. Models that fail are trained on padded micro-batches instead: slower, the same losses.
    """
    if not accepts(model, "position_ids"):
        return False
    was_training = model.training
    model.eval()
    try:
        vocabulary = model.get_input_embeddings().num_embeddings  # under zero3 its weight is empty here
        ids = torch.arange(3, 12, device=device)[None, :] % vocabulary
        other = ids.clone()
        other[0, :5] = torch.arange(20, 25, device=device) % vocabulary
        positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]], device=device)

        def logits(tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):  # as in training
                found: torch.Tensor = model(input_ids=tokens, position_ids=at, use_cache=False).logits
            return found[0, -4:].float()

        beside_one, beside_other = logits(ids, positions), logits(other, positions)
        alone = logits(ids[:, 5:], positions[:, 5:])
        scale = alone.abs().max()
        return bool(
            torch.equal(beside_one, beside_other) and ((beside_one - alone).abs().max() <= PROBE_TOLERANCE * scale)
        )
    finally:
        model.train(was_training)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
