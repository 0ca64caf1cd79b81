"""A field decides the trajectory of a run, or it does not: the mark stands on the field, and this reads it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Trajectory:
    """The mark. A field without one is as the section it stands in."""

    decides: bool


DECIDES = Trajectory(True)
FREE = Trajectory(False)


@dataclass(frozen=True)
class Known:
    """One field of the schema, wherever it stands."""

    path: str  # dotted, without list indices and bucket names
    model: type[BaseModel]
    name: str
    field: FieldInfo
    decides: bool
    section: type[BaseModel] | None  # the model below this field

    @property
    def once(self) -> bool:
        """Whether the path names one place: not inside a list, and not below a bucket."""
        return not any(part in self.path for part in ("data.train.", "storage."))


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model inside `Model`, `Model | None`, `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_of(inner))), None)


def fields(model: type[BaseModel], prefix: str = "", inherited: bool = False) -> Iterator[Known]:
    """Every field of `model` and of the models below it, outer ones first."""
    for name, field in model.model_fields.items():
        mark = next((mark for mark in field.metadata if isinstance(mark, Trajectory)), None)
        decides = mark.decides if mark else inherited
        section = section_of(field.annotation)
        yield Known(prefix + name, model, name, field, decides, section)
        if section:
            yield from fields(section, f"{prefix}{name}.", decides)
