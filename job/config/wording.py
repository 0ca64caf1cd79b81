"""Pydantic's errors in this project's words, and what is known about a field that does not exist."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from job.config.marks import Known, fields
from job.config.mistakes import Mistake, Path
from job.config.suggest import did_you_mean
from job.config.synonyms import explained
from job.config.trl_fields import PEFT_PASSED, TRL_PASSED

_SAYINGS = {
    "missing": "is required",
    "int_type": "must be a whole number, not {input}",
    "int_from_float": "must be a whole number, not {input}",
    "float_type": "must be a number, not {input}",
    "bool_type": "must be true or false, not {input}",
    "string_type": "must be text, not {input}; put it in quotes",
    "greater_than": "must be above {gt:g}, not {input}",
    "greater_than_equal": "must be {ge:g} or more, not {input}",
    "less_than": "must be below {lt:g}, not {input}",
    "less_than_equal": "must be {le:g} or less, not {input}",
    "finite_number": "must be a finite number, not {input}",
    "tuple_type": "must be a list like [a, b], not {input}",
    "model_type": "must be a mapping of fields, not {input}",
    "dict_type": "must be a mapping of fields, not {input}",
}
_REQUIRED = {
    "run": "write the run folder, like run: s3://bucket/prefix",
    "model": "write model: {base: s3://bucket/prefix}",
    "model.base": "write where the base weights are, like hf://org/name",
    "data": "write data: {train: [s3://bucket/chat.jsonl]}",
    "data.train": "write where the data are, like [s3://bucket/chat-*.jsonl]",
    "lora": "write {} for LoRA with its defaults, or null for full fine-tuning",
}


def from_pydantic(error: ErrorDetails, tree: Any, root: type[BaseModel]) -> Mistake:
    """In this project's words, at the path that the user wrote."""
    path = _written(error["loc"], tree, error["type"] in ("missing", "invalid_key"))
    dotted = ".".join(map(str, path))
    if error["type"] == "extra_forbidden":
        return Mistake(path, unknown(path, root))
    if error["type"] == "missing":
        return Mistake(path, f"is required; {_REQUIRED.get(dotted, 'write it')}")
    context: Mapping[str, Any] = error.get("ctx", {})
    if error["type"] == "value_error":
        return Mistake(path, str(context["error"]))
    if error["input"] is None and error["type"] in ("model_type", "dict_type", "tuple_type"):
        return Mistake(path, "is empty; leave it out, or write what belongs under it")
    shown = repr(error["input"]) if len(repr(error["input"])) < 60 else f"a {type(error['input']).__name__}"
    saying = _SAYINGS.get(error["type"], error["msg"].replace("{", "{{").replace("}", "}}"))
    return Mistake(path, saying.format(input=shown, **context))


def _written(location: Path, tree: Any, missing: bool) -> Path:
    """The part of pydantic's location that the user's tree has; a missing field's own name stays."""
    for depth, part in enumerate(location):
        inner = dict(enumerate(tree)) if isinstance(tree, list | tuple) else tree
        if not isinstance(inner, dict):
            return location[:depth]
        if part not in inner:
            return location[: depth + 1] if missing else location[:depth]
        tree = inner[part]
    return location


def unknown(path: Path, root: type[BaseModel]) -> str:
    """What is known about a field that does not exist there."""
    name = str(path[-1])
    known = list(fields(root))
    if elsewhere := [field.path for field in known if field.name == name and field.once]:
        return f"does not belong here; it is {' or '.join(elsewhere)}"
    if explanation := explained(name):
        return explanation
    for passed, package, section in (
        (TRL_PASSED, "TRL's SFTConfig", "trl"),
        (PEFT_PASSED, "peft's LoraConfig", "peft"),
    ):
        if name in passed:
            return f"is a field of {package}; it is {section}.{name}"
    siblings = [field.name for field in known if field.model is _model_at(path[:-1], known, root)]
    near = did_you_mean(name, siblings)
    if not near and (elsewhere_near := did_you_mean(name, {field.name for field in known})):
        guess = elsewhere_near.removeprefix("; did you mean ").removesuffix("?")
        near = "; did you mean " + next(field.path for field in known if field.name == guess) + "?"
    return f"unknown field{near or '; here are ' + ', '.join(siblings)}"


def _model_at(path: Path, known: list[Known], root: type[BaseModel]) -> type[BaseModel]:
    names = [part for part in path if isinstance(part, str)]
    names = names[:1] if names[:1] == ["storage"] else names
    found = (field.section for field in known if field.path == ".".join(names) and field.section)
    return next(found, root)
