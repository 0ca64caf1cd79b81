"""Asks the tuned model: reads a request, loads base and adapter, prints only the new text.

Started as `python -m job.ask REQUEST.json` by the supervisor's side, which has put all files in place before.
"""

import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import DataError, ExitCode, HardwareError, JobError, OutOfMemory
from job.training.process import bind_to_parent


@dataclass(frozen=True)
class Request:
    """What to ask, and of which files; paths are local folders."""

    base: str  # with `adapter` null: the full tuned model
    adapter: str | None
    tokenizer: str
    prompts: list[str]
    chat: bool
    max_new_tokens: int = 100
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    system: str | None = None
    device: str = "auto"  # auto | cpu | cuda
    precision: str = "auto"  # auto | bf16 | fp32
    trust_remote_code: bool = False

    @staticmethod
    def read(path: Path) -> "Request":
        return Request(**json.loads(path.read_text(encoding="utf-8")))


def ask(request: Request) -> list[str]:
    """The new text for each prompt.

    Raises HardwareError for a device or precision that is not there, DataError for files that are no model or a prompt
    that this model cannot take, OutOfMemory.
    """
    import torch  # here, so that a broken request is answered before seconds of importing

    from job.training.sample import generate

    cuda = torch.cuda.is_available()
    if request.device == "cuda" and not cuda:
        raise HardwareError("no CUDA device is visible; ask with --device cpu")
    device = "cuda" if cuda and request.device != "cpu" else "cpu"
    dtype = _dtype(request.precision, device)
    model, tokenizer, eos_ids = _load(request, dtype)
    try:
        samples = generate(
            model.to(device),
            tokenizer,
            request.prompts,
            chat=request.chat,
            system=request.system,
            max_new_tokens=request.max_new_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            eos_ids=eos_ids,
            stopped=lambda: False,
            autocast=dtype if dtype == torch.bfloat16 else None,
        )
        return [sample.generation for sample in samples]
    except torch.OutOfMemoryError as error:
        raise OutOfMemory("the model does not fit into this GPU's memory; ask with --device cpu") from error


def _dtype(precision: str, device: str) -> Any:
    import torch

    able = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bf16" and device == "cuda" and not able:
        raise HardwareError("this GPU does not compute in bf16; ask with --device cpu")
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and able) else torch.float32


def _load(request: Request, dtype: Any) -> tuple[Any, Any, list[int]]:
    """(model, tokenizer, the ids that end an answer). Weights in `dtype`, an adapter's in fp32 as they were trained."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": request.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(request.tokenizer, **options)
        ends = GenerationConfig.from_pretrained(request.adapter or request.base, local_files_only=True).eos_token_id
        model, report = AutoModelForCausalLM.from_pretrained(
            request.base, dtype=dtype, output_loading_info=True, **options
        )
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"its weights lack {missing[0]}")
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            # Tokens were added: their rows come with the adapter.
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        if request.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, request.adapter)
    except Exception as error:  # every format has its own ways of failing
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"the tuned model cannot be loaded: {reason}") from error
    return model, tokenizer, ends if isinstance(ends, list) else [ends] if ends is not None else []


def main(arguments: list[str]) -> int:
    """Answers on stdout as UTF-8, everything else (libraries that print included) on stderr; returns the exit code."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    bind_to_parent()
    logging.disable(logging.WARNING)  # libraries' warnings are not for whoever asks; an error is one line
    warnings.simplefilter("ignore")
    try:
        for text in ask(Request.read(Path(arguments[0]))):
            print(text, file=answers, flush=True)
    except JobError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return int(error.exit_code)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
