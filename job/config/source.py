"""YAML 1.2 with the line of every value: what the user wrote, as plain values, and where each stands."""

import math
import re
from pathlib import Path
from typing import Any

from job.config.mistakes import Mistake
from job.config.mistakes import Path as FieldPath
from job.errors import ConfigError

_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NULLS, _TRUE, _FALSE = ("", "~", "null", "Null", "NULL"), ("true", "True", "TRUE"), ("false", "False", "FALSE")
_SETTING = re.compile(r'"([^"]+)"|([^."=\s]+)')
_TEXT_TAG = "tag:yaml.org,2002:str"


class Source:
    """One config file and the settings of the command line: a tree of plain values, and a name for each place."""

    def __init__(self, name: str) -> None:
        self.tree: dict[str, Any] = {}
        self.mistakes: list[Mistake] = []
        self._name = name
        self._places: dict[FieldPath, str] = {}

    @classmethod
    def read(cls, path: Path) -> "Source":
        """The file's content. Raises ConfigError, one line, where it is missing, empty, no YAML or no mapping."""
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such file; give the path of a run config") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: is not UTF-8 text; give the path of a run config in YAML") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a run config") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> "Source":
        """The same of a text that `name` holds. Raises: ConfigError, one line."""
        source = cls(name)
        try:
            node = _compose(text)
        except _NotYamlError as error:
            raise ConfigError(f"{name}:{error.line}: is not YAML: {error}") from None
        if node is None:
            raise ConfigError(f"{name}: is empty; it needs at least run, model.base, data.train and lora")
        if node.id != "mapping":
            raise ConfigError(
                f"{name}:{node.start_mark.line + 1}: is no mapping; write fields, like run: s3://bucket/prefix"
            )
        source.tree = source._plain(node, (), lambda line: f"{name}:{line}")
        return source

    def override(self, setting: str) -> None:
        """Applies one `a.b=value`; the value is YAML. Mistakes are kept and told with the others."""
        dotted, equals, text = setting.partition("=")
        names = [quoted or plain for quoted, plain in _SETTING.findall(dotted)]
        place = f"--set {dotted}"
        path: FieldPath = tuple(int(name) if name.isdigit() else name for name in names)
        self._places[path] = place
        if not equals or not names:
            self.mistakes.append(Mistake(path, "has no value; write --set path=value"))
            return
        try:
            node = _compose(text)
        except _NotYamlError as error:
            self.mistakes.append(Mistake(path, f"is not YAML: {error}; put the value in quotes"))
            return
        if node is None:
            self.mistakes.append(Mistake(path, f"has no value; write --set {dotted}=null to unset it"))
            return
        self._places = {old: name for old, name in self._places.items() if old[: len(path)] != path}
        self._places[path] = place
        value = self._plain(node, path, lambda line: place)
        inner: Any = self.tree
        for depth, part in enumerate(path):
            if isinstance(inner, list) and isinstance(part, int) and part < len(inner):
                pass
            elif not isinstance(inner, dict):
                above = ".".join(map(str, path[:depth]))
                self.mistakes.append(Mistake(path, f"{above} has nothing named {part}; set {above} as a whole"))
                return
            if depth + 1 == len(path):
                inner[part] = value
            else:
                if isinstance(inner, dict) and inner.get(part) is None:
                    inner[part] = {}
                    self._places[path[: depth + 1]] = place
                inner = inner[part]

    def label(self, path: FieldPath) -> str:
        """`FILE:LINE` or `--set PATH` of the value at `path`, else of what stands around it."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path, f"{self._name}:1")

    def _plain(self, node: Any, path: FieldPath, place: Any, above: tuple[int, ...] = ()) -> Any:
        if id(node) in above:
            self.mistakes.append(Mistake(path, "refers to itself; write it out"))
            return None
        above = (*above, id(node))
        self._places.setdefault(path, place(node.start_mark.line + 1))
        if node.id == "sequence":
            return [self._plain(item, (*path, index), place, above) for index, item in enumerate(node.value)]
        if not str(node.tag).startswith("tag:yaml.org,2002:"):
            self.mistakes.append(
                Mistake(path, f"the tag {node.tag} is unknown; leave it out, or put the text in quotes")
            )
        if node.id == "scalar":
            return _scalar(node)
        found: dict[str, Any] = {}
        for key, value in node.value:
            inner, line = (*path, str(key.value)), key.start_mark.line + 1
            if key.id != "scalar":
                self.mistakes.append(Mistake(path, "has a key that is no name; write name: value"))
            elif str(key.value) in found:
                first = self._places[inner]
                self.mistakes.append(Mistake(inner, f"is given twice, in {first} and {place(line)}; remove one"))
            else:
                self._places[inner] = place(line)
                found[str(key.value)] = self._plain(value, inner, place, above)
                if inner == ("lora",) and value.id == "scalar" and value.value == "":
                    self.mistakes.append(
                        Mistake(inner, "is empty; write {} for LoRA with its defaults, or null for full fine-tuning")
                    )
        return found


class _NotYamlError(Exception):
    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


def _compose(text: str) -> Any:
    """The tree of YAML nodes, or None where there is none."""
    from ruamel.yaml import YAML  # only where a file is read: importing the schema stays cheap
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _NotYamlError(
            mark.line + 1 if mark else 1, " ".join(str(error.problem or error.context).split())
        ) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise _NotYamlError(1, " ".join(str(error).split())) from None


def _scalar(node: Any) -> str | int | float | bool | None:
    """YAML 1.2's core schema, written out: `2e-4` is a number; `1:30`, `no` and `1_000` are text."""
    text: str = node.value
    plain = node.style is None and not (node.tag == _TEXT_TAG and _looks_typed(text))
    if not plain:
        return text
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITE.fullmatch(text):
        return float(f"{found[1]}inf")
    return math.nan if text in (".nan", ".NaN", ".NAN") else text


def _looks_typed(text: str) -> bool:
    return bool(_INT.fullmatch(text) or _FLOAT.fullmatch(text)) or text in _NULLS + _TRUE + _FALSE
