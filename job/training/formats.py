"""The first row of a file says which format all of its rows have; one that has another says so.

Looked for in this order, and the first that fits counts: a list of turns (`messages`, `conversations`,
`conversation`); `prompt` and `completion`; `instruction` and `output` (Alpaca); `text`.
"""

import string
from collections.abc import Callable, Mapping

from job.errors import ConfigError
from job.training.messages import Messages, Trained, messages, tools
from job.training.rows import Chat, Instruction, Pair, Reader, Record, Row, RowError, Source, Text
from job.training.values import column, has, is_given, kind, text

TURN_KEYS = ("messages", "conversations", "conversation")
ALPACA = "Below is an instruction that describes a task"
ALPACA_TASK = "Write a response that appropriately completes the request.\n\n"


def reader_for(source: Source, record: Record) -> tuple[str, Reader]:
    """(name of the format, reader of its rows), from what the source says or else from the columns of `record`.

    Raises RowError when no format fits this row, ConfigError when the source asks for one that does not exist.
    """
    if source.columns is not None:
        return "columns", _columns_reader(source.columns)
    if source.format not in ("auto", *WANTED):
        known = ", ".join(("auto", *WANTED))
        raise ConfigError(f"data.format: {source.format} is not known; one of {known}")
    for name, find in WANTED.items():
        if source.format in ("auto", name) and (found := find(record)) is not None:
            return found
    if source.format == "auto":
        raise RowError(
            "neither `messages` nor `prompt` and `completion`, nor `instruction` and `output`, nor `text`; "
            f"name its columns in data.columns ({has(record)})"
        )
    advice = "" if source.format in ("chat", "text") else "; name its columns in data.columns"
    raise RowError(f"no {NEEDED[source.format]}{advice} ({has(record)})")


def _chat(record: Record) -> tuple[str, Reader] | None:
    given = [key for key in TURN_KEYS if is_given(record, key)] or [key for key in TURN_KEYS if key in record]
    return (given[0], _chat_reader(given[0])) if given else None


def _prompt_completion(record: Record) -> tuple[str, Reader] | None:
    if not {"prompt", "completion"} <= record.keys():
        return None
    if isinstance(record["prompt"], list) or isinstance(record["completion"], list):
        return "prompt_completion", _spoken_pair
    return "prompt_completion", lambda row: Pair(_pair_side(row, "prompt"), _pair_side(row, "completion"))


def _alpaca(record: Record) -> tuple[str, Reader] | None:
    return ("alpaca", _instruction) if {"instruction", "output"} <= record.keys() else None


def _text(record: Record) -> tuple[str, Reader] | None:
    return ("text", lambda row: Text(column(row, "text"))) if "text" in record else None


Find = Callable[[Record], tuple[str, Reader] | None]
WANTED: dict[str, Find] = {
    "chat": _chat, "prompt_completion": _prompt_completion, "alpaca": _alpaca, "text": _text
}  # fmt: skip
NEEDED = {
    "chat": "`messages`",
    "prompt_completion": "`prompt` and `completion`",
    "alpaca": "`instruction` and `output`",
    "text": "`text`",
}


def _chat_reader(key: str) -> Reader:
    def read(record: Record) -> Chat:
        if key not in record:
            raise RowError(f"no `{key}`, which the rows before it have ({has(record)})")
        said, trained = messages(record[key], key)
        if is_given(record, "system"):
            said, trained = _with_system(column(record, "system"), said, trained)
        return Chat(said, tools(record.get("tools")), trained)

    return read


def _with_system(system: str, said: Messages, trained: Trained) -> tuple[Messages, Trained]:
    if said[0]["role"] != "system":
        return [{"role": "system", "content": system}, *said], trained and (False, *trained)
    if said[0]["content"] != system:
        raise RowError("its column `system` and the system turn it begins with say different things; keep one")
    return said, trained


def _spoken_pair(record: Record) -> Chat:
    """Prompt and completion given as turns: what is trained stands in the completion."""
    (prompt, _), (completion, weighed) = (_side_turns(record, name) for name in ("prompt", "completion"))
    trained = weighed if weighed is not None else (True,) * len(completion)
    return Chat([*prompt, *completion], tools(record.get("tools")), (False,) * len(prompt) + trained)


def _side_turns(record: Record, name: str) -> tuple[Messages, Trained]:
    value = record.get(name)
    if not isinstance(value, list):
        raise RowError(f"its `{name}` is {kind(value)}, not a list of turns: write both sides the same way")
    return messages(value, name)


def _pair_side(record: Record, name: str) -> str:
    if isinstance(record.get(name), list):
        raise RowError(f"its `{name}` is a list where text is expected: write both sides of all rows the same way")
    return column(record, name)


def _instruction(record: Record) -> Instruction:
    task, answer = column(record, "instruction"), column(record, "output")
    more = column(record, "input") if is_given(record, "input") else ""
    asked = f"{task}\n\n{more}" if more else task
    chat = Chat([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}])
    return Instruction(chat, Pair(alpaca_prompt(task, more), answer))


def alpaca_prompt(instruction: str, more: str = "") -> str:
    """The text that Stanford Alpaca put around an instruction and its input (github.com/tatsu-lab/stanford_alpaca)."""
    if not more:
        return f"{ALPACA}. {ALPACA_TASK}### Instruction:\n{instruction}\n\n### Response:\n"
    head = f"{ALPACA}, paired with an input that provides further context. {ALPACA_TASK}"
    return f"{head}### Instruction:\n{instruction}\n\n### Input:\n{more}\n\n### Response:\n"


def _columns_reader(columns: Mapping[str, str]) -> Reader:
    """`columns` maps prompt and completion to a column each, or to a template such as `"{text} "`."""
    if set(columns) != {"prompt", "completion"}:
        raise ConfigError("data.columns: give both prompt and completion, each a column's name or a template")
    prompt, completion = _filled("prompt", columns["prompt"]), _filled("completion", columns["completion"])

    def read(record: Record) -> Row:
        return Pair(prompt(record), completion(record))

    return read


def _filled(name: str, template: str) -> Callable[[Record], str]:
    if "{" not in template and "}" not in template:
        return lambda record: column(record, template)
    try:
        parts = [(text(literal, name), field) for literal, field, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ConfigError(f"data.columns.{name}: {error}; write {{{{ and }}}} for braces") from error
    return lambda record: "".join(
        literal + (column(record, field) if field is not None else "") for literal, field in parts
    )
