"""A tree of plain values becomes a RunConfig, or one error that holds every mistake at once."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from job.config.checks import disagreements
from job.config.mistakes import Mistake, Path
from job.config.schema import RunConfig
from job.config.wording import from_pydantic
from job.errors import ConfigError

# What stands in for a required field that is wrong, so that the other fields can still be compared with each other.
_STAND_INS: dict[Path, Any] = {
    ("run",): "s3://run",
    ("model",): {"base": "s3://base"},
    ("model", "base"): "s3://base",
    ("data",): {"train": ["s3://data"]},
    ("data", "train"): ["s3://data"],
    ("data", "columns"): None,
    ("lora",): None,
}
_PASSES = 4


def build(
    tree: dict[str, Any],
    label: Callable[[Path], str],
    found: Sequence[Mistake],
    variables: Mapping[str, str] | None = None,
) -> RunConfig:
    """The config of `tree`; `variables` fill `${NAME}`, None leaves it. Raises ConfigError: one line per mistake.

    label: what names a path's place, like `run.yaml:12`. found: mistakes that are known already.
    """
    mistakes = list(found)
    config, wrong = _attempt(tree, variables)
    mistakes += wrong
    partial, broken, pruned = config, wrong, copy.deepcopy(tree)
    for _ in range(_PASSES):
        if partial is not None:
            break
        for mistake in broken:
            _prune(pruned, mistake.path)
        partial, broken = _attempt(pruned, variables)
    if partial is not None:
        touched = [mistake.path for mistake in wrong]
        mistakes += [one for one in disagreements(partial) if not _depends(one, touched)]
    if config is not None and not mistakes:
        return config
    raise ConfigError(told(mistakes, label))


def told(mistakes: Sequence[Mistake], label: Callable[[Path], str]) -> str:
    """One line per mistake; where there are several, a line with their count comes first."""
    lines = []
    for mistake in mistakes:
        place = label(mistake.path)
        # `--set a.b` names the path already
        lines.append(
            f"{place}: {mistake.text}"
            if place == f"--set {mistake.dotted}"
            else f"{place}: {mistake.dotted or 'config'}: {mistake.text}"
        )
    lines = list(dict.fromkeys(lines))
    return (
        lines[0]
        if len(lines) == 1
        else "\n".join([f"{len(lines)} mistakes in the config:", *sorted(lines, key=_order)])
    )


def _order(line: str) -> tuple[bool, str, int]:
    place, _, rest = line.partition(":")
    number = rest.partition(":")[0]
    return place.startswith("--set"), place, int(number) if number.isdigit() else 0


def _attempt(tree: dict[str, Any], variables: Mapping[str, str] | None) -> tuple[RunConfig | None, list[Mistake]]:
    try:
        return RunConfig.model_validate(tree, context={"fields_only": True, "variables": variables}), []
    except ValidationError as error:
        return None, [from_pydantic(one, tree, RunConfig) for one in error.errors(include_url=False)]


def _prune(tree: dict[str, Any], path: Path) -> None:
    """Takes a wrong value out, with the whole list around it; what is required gets its stand-in."""
    path = path[: next((depth for depth, part in enumerate(path) if isinstance(part, int)), len(path))]
    inner: Any = tree
    for depth, part in enumerate(path):
        if path[: depth + 1] in _STAND_INS and depth + 1 == len(path):
            inner[part] = copy.deepcopy(_STAND_INS[path])
        elif depth + 1 == len(path):
            inner.pop(part, None)
        elif isinstance(inner.get(part), dict):
            inner = inner[part]
        else:
            return
    if path[:2] == ("data", "columns"):
        tree["data"]["columns"] = None


def _depends(mistake: Mistake, touched: Sequence[Path]) -> bool:
    """Whether the mistake may only come from a value that was taken out."""
    used = (mistake.path, *mistake.also)
    return any(one[: len(other)] == other or other[: len(one)] == one for one in used for other in touched)
