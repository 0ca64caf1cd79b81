"""The model card: what was trained on what, how to load it, and what it was made with."""

import json
from collections.abc import Mapping
from typing import Any

from job.config import RunConfig
from job.report.wording import numbers, spoken_value


def model_card(config: RunConfig, result: Mapping[str, Any]) -> str:
    """Markdown with the front matter that model hubs read.

    Of `result` these are used where they are there: `steps`, `rows` (trained), `trained_tokens`,
    `chat` (whether it answers turns of a chat),
    `evaluations` (each {"step": n, "eval_loss": x, ...}, oldest first),
    `best` (one of them), and `versions` (library -> version).
    """
    adapter = config.lora is not None
    name = config.run.rstrip("/").rpartition("/")[2] or "model"
    parts = (
        _front_matter(config, adapter),
        f"# {name}",
        f"{'A LoRA adapter for' if adapter else 'A full fine-tuning of'} `{config.model.base}`, made with sft-job.",
        "## Data\n\n" + _data(config, result),
        "## Training\n\n" + _table(_hyperparameters(config, result)),
        _evaluations(config, result),
        "## Use\n\n" + _usage(config, adapter, bool(result.get("chat"))),
        _versions(result),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(config: RunConfig, adapter: bool) -> str:
    base = json.dumps(_loadable(config.model.base), ensure_ascii=False)
    tags = ["sft", "sft-job", *(["lora"] if adapter else [])]
    lines = [
        f"base_model: {base}",
        f"base_model_relation: {'adapter' if adapter else 'finetune'}",
        f"library_name: {'peft' if adapter else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags:",
        *(f"- {tag}" for tag in tags),
    ]
    return "\n".join(["---", *lines, "---"])


def _data(config: RunConfig, result: Mapping[str, Any]) -> str:
    lines = [f"- `{source.uri}`" for source in config.data.train]
    held_out = config.data.eval
    if isinstance(held_out, float):
        lines.append(f"- of these, {100 * held_out:.3g}% held out for evaluation (seed {config.train.seed})")
    elif held_out is not None:
        lines.append(f"- evaluation: `{held_out}`")
    amounts = [(result.get("rows"), "rows"), (result.get("trained_tokens"), "trained tokens")]
    lines += [f"- {amount:,} {what}" for amount, what in amounts if amount is not None]
    return "\n".join(lines)


def _hyperparameters(config: RunConfig, result: Mapping[str, Any]) -> dict[str, Any]:
    train = config.train.model_dump(mode="json")
    train["learning_rate"] = config.learning_rate
    hidden: tuple[str, ...] = (
        "eval_steps",
        "logging_steps",
        "token_budget",
        "gradient_checkpointing",
    )  # these change no weight
    if config.train.max_steps is not None:
        hidden += ("epochs",)  # not what ended the run
    rows = {name: value for name, value in train.items() if name not in hidden and value is not None}
    rows |= {"max_length": config.data.max_length}
    if config.lora is not None:
        rows |= {f"lora {name}": value for name, value in config.lora.model_dump(mode="json").items()}
    return rows | ({"steps": result["steps"]} if "steps" in result else {})


def _evaluations(config: RunConfig, result: Mapping[str, Any]) -> str:
    evaluations = result.get("evaluations") or []
    if not evaluations:
        return ""
    last, best = evaluations[-1], result.get("best")
    lines = [_evaluation("Last", last)]
    if best and best != last:
        lines.append(_evaluation(f"Best by `{config.best.metric}`", best))
    return "## Evaluation\n\n" + "\n".join(lines)


def _evaluation(title: str, evaluation: Mapping[str, Any]) -> str:
    figures = (f"{name} {spoken_value(value)}" for name, value in numbers(evaluation).items() if name != "step")
    return f"- {title}, step {evaluation['step']}: {', '.join(figures)}"


def _usage(config: RunConfig, adapter: bool, chat: bool) -> str:
    base = _loadable(config.model.base)
    classes = ["AutoModelForCausalLM", "AutoTokenizer"]
    lines = ['tokenizer = AutoTokenizer.from_pretrained(".")']
    if adapter:
        classes.append("GenerationConfig")
        lines += [
            f"base = AutoModelForCausalLM.from_pretrained({_quoted(base)})",
            'model = PeftModel.from_pretrained(base, ".")',
            'ends = GenerationConfig.from_pretrained(".")  # knows the trained end of an answer; the base\'s may not',
        ]
    else:
        lines += ['model = AutoModelForCausalLM.from_pretrained(".")']
    prompt = config.samples.prompts[0] if config.samples.prompts else "Hello"
    if chat:
        lines += [
            f'chat = [{{"role": "user", "content": {_quoted(prompt)}}}]',
            "inputs = tokenizer.apply_chat_template(",
            '    chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    else:
        lines += [f'inputs = tokenizer({_quoted(prompt)}, return_tensors="pt")']
    stopping = "generation_config=ends, " if adapter else ""
    lines += [
        f"made = model.generate(**inputs, {stopping}max_new_tokens=100)",
        'print(tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ]
    imports = [f"from transformers import {', '.join(classes)}"]
    if adapter:
        imports.insert(0, "from peft import PeftModel")
    note = f"Copy `{base}` to a local folder first and use its path.\n\n" if base.startswith("s3://") else ""
    code = "\n".join([*imports, "", *lines])
    return f"{note if adapter else ''}In this folder:\n\n```python\n{code}\n```"


def _versions(result: Mapping[str, Any]) -> str:
    versions = result.get("versions") or {}
    listed = ", ".join(f"{library} {version}" for library, version in versions.items())
    return f"## Versions\n\n{listed}" if listed else ""


def _table(rows: Mapping[str, Any]) -> str:
    cells = (f"| {name} | {_cell(value)} |" for name, value in rows.items())
    return "\n".join(["| | |", "| --- | --- |", *cells])


def _quoted(text: str) -> str:
    """As a Python string that shows every script as it is written."""
    return json.dumps(text, ensure_ascii=False)


def _cell(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _loadable(base: str) -> str:
    """A hub's name without our scheme and revision; every other source as it was given."""
    return base.removeprefix("hf://").partition("@")[0] if base.startswith("hf://") else base
