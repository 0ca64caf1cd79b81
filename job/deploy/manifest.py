"""Values as YAML in which text stays text: y, no, 2 and 1e3 are in quotes, for YAML 1.1's readers and for 1.2's."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*", re.ASCII)
PLAIN_TEXT = re.compile(r"/?[A-Za-z][A-Za-z0-9]*(?:[_./-][A-Za-z0-9]+)*", re.ASCII)
WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}  # that YAML 1.1 or 1.2 reads
FIRST = ("apiVersion", "kind", "metadata", "name")


def documents(objects: Sequence[Mapping[str, object]]) -> str:
    return "---\n".join(document(value) for value in objects)


def document(value: Mapping[str, object]) -> str:
    return "".join(f"{line}\n" for line in _mapping(value))


def _mapping(value: Mapping[str, object]) -> Iterator[str]:
    for key in sorted(value, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST)):
        inner, name = value[key], _key(key)
        if isinstance(inner, Mapping) and inner:
            yield f"{name}:"
            yield from (f"  {line}" for line in _mapping(inner))
        elif isinstance(inner, list | tuple) and inner and not all(_short(item) for item in inner):
            yield f"{name}:"
            yield from _sequence(inner)
        elif isinstance(inner, str) and _block(inner):
            yield f"{name}: {'|' if inner.endswith(chr(10)) else '|-'}"
            yield from (f"  {line}" if line else "" for line in inner.removesuffix("\n").split("\n"))
        else:
            yield f"{name}: {_flow(inner)}"


def _sequence(values: Sequence[object]) -> Iterator[str]:
    for value in values:
        lines = iter(_mapping(value)) if isinstance(value, Mapping) and value else iter([_flow(value)])
        yield f"- {next(lines)}"
        yield from (f"  {line}" for line in lines)


def _short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 30)


def _flow(value: object) -> str:
    if isinstance(value, str):
        return value if PLAIN_TEXT.fullmatch(value) and value.lower() not in WORDS else _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_flow(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, allow_nan=False)


def _key(key: str) -> str:
    return key if PLAIN_KEY.fullmatch(key) and key.lower() not in WORDS else _quoted(key)


def _quoted(text: str) -> str:
    """JSON's form, but no surrogates: YAML knows none."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(sign) or (sign if sign.isprintable() else _escape(sign)) for sign in text) + '"'


def _escape(sign: str) -> str:
    return f"\\U{ord(sign):08x}" if ord(sign) > 0xFFFF else f"\\u{ord(sign):04x}"


def _block(text: str) -> bool:
    """Whether it can stand as it is, line by line: |- and | keep no more than one line's end, nor a first line's
    indentation."""
    return (
        "\n" in text.removesuffix("\n")
        and not text.startswith((" ", "\n", "\t"))
        and not text.endswith("\n\n")
        and all(sign.isprintable() or sign == "\n" for sign in text)
        and not any(line != line.rstrip(" ") for line in text.split("\n"))
    )
