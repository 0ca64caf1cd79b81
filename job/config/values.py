"""Single values and how they are written: durations, intervals, choices, counts, places."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from job.config.suggest import did_you_mean

_DURATION = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?"
)
_STEPS = re.compile(r"(\d+) ?steps?")
_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


@dataclass(frozen=True)
class Interval:
    """How often something is due: after so many steps, or so many seconds; one of the two is None."""

    steps: int | None = None
    seconds: float | None = None


def duration_seconds(text: object) -> float:
    """Seconds of `90s`, `15m`, `1h30m` or `2d`. ValueError for anything else, zero included."""
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = (
        sum(float(number) * _SECONDS[unit] for unit, number in found.groupdict().items() if number) if found else 0.0
    )
    if found and text and not seconds:
        raise ValueError(f"{text!r} is no time at all; write 1s or more")
    if not seconds:
        raise ValueError(
            f"{text!r} is not a duration; write it with its unit (d, h, m or s), like 90s, 15m or 1h30m, at least 1s"
        )
    return seconds


def interval(text: object) -> Interval:
    """The Interval of `500 steps` or of a duration. ValueError for anything else."""
    if isinstance(text, str) and (found := _STEPS.fullmatch(text)) and int(found[1]):
        return Interval(steps=int(found[1]))
    try:
        return Interval(seconds=duration_seconds(text))
    except ValueError:
        raise ValueError(
            f"{text!r} is not an interval; write auto, a duration like 15m, or a count like 500 steps"
        ) from None


def _duration(value: object, words: tuple[str | None, ...]) -> object:
    if value not in words:
        duration_seconds(value)
    return value


def _interval(value: object) -> object:
    if value != "auto":
        interval(value)
    return value


Grace = Annotated[str, BeforeValidator(partial(_duration, words=("auto",)))]
MaxTime = Annotated[str | None, BeforeValidator(partial(_duration, words=(None,)))]
Duration = Annotated[str, BeforeValidator(partial(_duration, words=()))]
Every = Annotated[str, BeforeValidator(_interval)]


@dataclass(frozen=True)
class Choice:
    """For a Literal: says what may be written, what comes later, and why a known name is refused."""

    later: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(partial(self._check, get_args(source)), handler(source))

    def _check(self, names: tuple[object, ...], value: object) -> object:
        if value in names and not isinstance(value, bool):
            return value
        listed = " or ".join(", ".join(map(str, names)).rsplit(", ", 1))
        if isinstance(value, str) and value in self.refused:
            raise ValueError(f"{value} is refused: {self.refused[value]}; write {listed}")
        if value in self.later:
            raise ValueError(f"{value} is not supported yet; write {listed}")
        raise ValueError(f"{value!r} is unknown; write {listed}{did_you_mean(value, map(str, names))}")


def _count_or(word: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value == word or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
            return value
        raise ValueError(f"must be {word} or a whole number above 0, not {value!r}")

    return check


Auto = Literal["auto"]
Positive = Annotated[int, Field(gt=0)]
AutoOrCount = Annotated[int | Auto, BeforeValidator(_count_or("auto"))]
EpochOrSteps = Annotated[int | Literal["epoch"], BeforeValidator(_count_or("epoch"))]
EvalOrSteps = Annotated[int | Literal["eval"], BeforeValidator(_count_or("eval"))]


def _auto_or_flag(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"must be auto, true or false, not {value!r}")


AutoOrFlag = Annotated[bool | Auto, BeforeValidator(_auto_or_flag)]


def _warmup(steps: float) -> float:
    if steps >= 1 and steps != math.floor(steps):
        raise ValueError(f"must be a share below 1 or a whole number of steps, not {steps}")
    return steps


Warmup = Annotated[float, Field(ge=0), AfterValidator(_warmup)]


def expanded(value: object, info: ValidationInfo) -> object:
    """`${NAME}` and a leading `~/` filled in, where the validation's context holds the `variables`; else as it is."""
    variables: Mapping[str, str] | None = (info.context or {}).get("variables")
    if variables is None or not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if not found[0].endswith("}") or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", found[1]):
            raise ValueError(f"{found[0]!r} is not a variable; write ${{NAME}}")
        if not variables.get(found[1]):
            raise ValueError(
                f"the variable {found[1]} is {'empty' if found[1] in variables else 'not set'}; export {found[1]}"
            )
        return variables[found[1]]

    text = _VARIABLE.sub(fill, value)
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def begins_like_a_uri(place: str) -> bool:
    """`s3:bucket` is a slip of the pen: who means a folder of that name writes `./` before it."""
    return re.match(r"[^/]*:", place) is not None


def _place(value: str, schemes: tuple[str, ...]) -> str:
    scheme, separator, rest = value.partition("://")
    if not value.strip():
        raise ValueError("is empty; write a path or a URI")
    if separator and scheme not in schemes:
        known = ", ".join(f"{name}://" for name in schemes)
        raise ValueError(f"{scheme}:// is unknown; write {known} or a path (any S3 store works through its endpoint)")
    if not separator and begins_like_a_uri(value):
        known = " or ".join(f"{name}://" for name in schemes)
        raise ValueError(f"{value!r} is neither a path nor a known URI; write {known}, or ./{value} for such a folder")
    if separator and (not rest or rest.startswith("/")):
        raise ValueError(
            f"{value!r} has no bucket; write s3://bucket/prefix"
            if scheme == "s3"
            else f"{value!r} has no name; write hf://org/name"
        )
    return value


def _endpoint(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError(f"{value!r} is not a URL; write https://host or http://host:port")
    return value


Expanded = Annotated[str, BeforeValidator(expanded)]
RunPlace = Annotated[str, AfterValidator(partial(_place, schemes=("s3",))), BeforeValidator(expanded)]
SourcePlace = Annotated[str, AfterValidator(partial(_place, schemes=("s3", "hf"))), BeforeValidator(expanded)]
Endpoint = Annotated[str, AfterValidator(_endpoint), BeforeValidator(expanded)]
Names = Annotated[tuple[str, ...], Field(strict=False)]


def _share_or_place(value: object, info: ValidationInfo) -> object:
    if isinstance(value, str):
        if re.fullmatch(r"0?\.[0-9]+", value):
            raise ValueError(f"{value!r} is text in quotes; for a share of the rows write {value} without them")
        return _place(str(expanded(value, info)), ("s3", "hf"))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1):
        return value
    raise ValueError(f"must be a share between 0 and 1 or a URI, not {value!r}")


ShareOrPlace = Annotated[float | str | None, BeforeValidator(_share_or_place)]


def _modules(value: object) -> object:
    if isinstance(value, str) or (
        isinstance(value, list | tuple) and value and all(isinstance(name, str) for name in value)
    ):
        return tuple(value) if isinstance(value, list) else value
    raise ValueError(f"must be all-linear, a pattern, or a list of module names, not {value!r}")


Modules = Annotated[str | tuple[str, ...], BeforeValidator(_modules)]
