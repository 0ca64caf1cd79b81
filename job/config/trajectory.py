"""The part of a config that decides what is learned: flattened, digested, compared, and shown in the schema."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, JsonValue

from job.config.marks import Known, fields
from job.config.schema import RunConfig

Flat = Mapping[str, JsonValue]


def trajectory(config: RunConfig) -> dict[str, JsonValue]:
    """{dotted path: value} of the trajectory-deciding fields, defaults that follow from other fields written out."""
    return dict(_deciding(config.resolved().to_dict(), "", list(fields(RunConfig)), RunConfig))


def trajectory_digest(config: RunConfig) -> str:
    """SHA-256, in hex, of the canonical JSON of `trajectory(config)`."""
    text = json.dumps(trajectory(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changed(ours: RunConfig | Flat, theirs: RunConfig | Flat) -> list[str]:
    """The paths of the deciding fields that differ, sorted. Our `auto` takes what the run settled on."""
    here = trajectory(ours) if isinstance(ours, RunConfig) else ours
    there = trajectory(theirs) if isinstance(theirs, RunConfig) else theirs
    return [
        path
        for path in sorted({*here, *there})
        if _shown(here, path) != _shown(there, path) and here.get(path) != "auto"
    ]


def trajectory_diff(ours: RunConfig | Flat, theirs: RunConfig | Flat) -> list[str]:
    """One line for each of the `changed` fields; one for a section that is null on one side."""
    here = trajectory(ours) if isinstance(ours, RunConfig) else ours
    there = trajectory(theirs) if isinstance(theirs, RunConfig) else theirs
    paths = changed(here, there)
    sections = {path for path in paths if any(other.startswith(f"{path}.") for other in paths)}
    return [
        f"{path}: {_shown(here, path, path in sections)} here, {_shown(there, path, path in sections)} in run.json"
        for path in paths
        if not any(path.startswith(f"{section}.") for section in sections)
    ]


def _shown(flat: Flat, path: str, section: bool = False) -> str:
    if path not in flat:
        return "given" if section else "absent"
    value = flat[path]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _deciding(
    values: dict[str, Any], prefix: str, known: list[Known], model: type[BaseModel]
) -> Iterator[tuple[str, JsonValue]]:
    for field in known:
        if field.model is not model or field.name not in values or field.path != f"{prefix}{field.name}":
            continue
        value = values[field.name]
        if field.section and isinstance(value, dict):
            yield from _deciding(value, f"{field.path}.", known, field.section)
        elif field.decides:
            yield from _flat(field.path, value)


def _flat(path: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    """Mappings by name and lists of mappings by index; other lists stay whole."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{path}.{name}", inner)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, item in enumerate(value):
            yield from _flat(f"{path}.{index}", item)
    else:
        yield path, value


def json_schema() -> dict[str, Any]:
    """The JSON schema of a run config; each property says by `trajectory` whether it decides what is learned."""
    schema = RunConfig.model_json_schema()
    for field in fields(RunConfig):
        owner = schema if field.model is RunConfig else schema["$defs"][field.model.__name__]
        owner["properties"][field.name]["trajectory"] = field.decides
    # What the models accept beside their own form: a bare URI for a source, one source for a list of them.
    schema["$defs"]["DataSource"] = {"anyOf": [{"type": "string"}, schema["$defs"]["DataSource"]]}
    train = schema["$defs"]["DataConfig"]["properties"]["train"]
    train["anyOf"] = [{"type": train.pop("type"), "items": train.pop("items")}, {"$ref": "#/$defs/DataSource"}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
