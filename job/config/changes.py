"""What a changed field means for a run that is to go on: the same tensors? the same rows? and how `--set` writes it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from job.config.schema import RunConfig

# Beside these, `model`, `lora` and `peft` decide which tensors there are or what they mean.
_SAME_TENSORS = ("model.tokenizer", "model.precision", "model.chat_template", "model.attn_implementation",
                 "model.trust_remote_code", "lora.dropout")  # fmt: skip
_OTHER_STATE = ("train.optim",)  # the optimizer's state is not another one's
_OTHER_ROWS = ("data", "model.tokenizer", "model.chat_template", "hooks")
_ORDER = ("train.seed", "train.global_batch_size")  # the same rows, met at other steps


def needs_new_start(paths: Iterable[str]) -> list[str]:
    """Those of the changed fields under which the trained tensors or the optimizer's state fit no more."""
    return [
        path
        for path in paths
        if _below(path, _OTHER_STATE) or (_below(path, ("model", "lora", "peft")) and path not in _SAME_TENSORS)
    ]


def needs_other_rows(paths: Iterable[str], ours: RunConfig, theirs: RunConfig) -> list[str]:
    """Those of the changed fields under which the rows have to be prepared anew."""
    shared = any(isinstance(config.data.eval, float) for config in (ours, theirs))  # a share is drawn by the seed
    return [path for path in paths if _below(path, _OTHER_ROWS) or (path == "train.seed" and shared)]


def reorders_rows(paths: Iterable[str]) -> list[str]:
    """Those of the changed fields under which the same step means other rows."""
    return [path for path in paths if path in _ORDER]


def settings(ours: RunConfig, theirs: dict[str, Any], paths: Sequence[str]) -> list[str]:
    """What `--set` takes to make `theirs`, a whole config's tree, agree with ours at these paths.

    A list, and a mapping whose names differ, is set as a whole.
    """
    mine = ours.resolved().to_dict()
    found: dict[str, Any] = {}
    for path in paths:
        at, value, other = [], mine, theirs
        for part in path.split("."):
            if not (isinstance(value, dict) and isinstance(other, dict) and part in value and part in other):
                break
            value, other = value[part], other[part]
            at.append(part)
        found[".".join(at)] = value
    return [f"{path}={_written(value)}" for path, value in found.items()]


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any], above: str = "") -> list[str]:
    """The dotted paths at which two configs' trees differ; a list is compared as a whole."""
    found = []
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name), theirs.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing(one, other, f"{above}{name}.")
        elif one != other:
            found.append(f"{above}{name}")
    return found


def next_folder(run: str) -> str:
    """A name beside this run's: `runs/chat` gives `runs/chat-2`, and that `runs/chat-3`."""
    place = run.rstrip("/")
    if counted := re.fullmatch(r"(.*[^/]-)(\d{1,4})", place):
        return f"{counted[1]}{int(counted[2]) + 1}"
    return f"{place}-2"


def _written(value: Any) -> str:
    """As YAML reads it, on one line; JSON but for plain words."""
    if isinstance(value, list):
        value = [_short(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z_/][\w./:@*-]*", value) and value.lower() not in _TYPED:
        return value
    return json.dumps(value, ensure_ascii=False)


_TYPED = ("null", "true", "false")


def _short(item: Any) -> Any:
    """A source of data with nothing but its URI is written as that."""
    if not isinstance(item, dict):
        return item
    given = {name: value for name, value in item.items() if value is not None}
    return given["uri"] if given.keys() == {"uri"} else given


def _below(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(f"{root}.") for root in roots)
