"""The turns of a conversation in any of their spellings become messages as chat templates take them.

Role, content and calls get the names that templates use; whatever else a turn holds (a name, reasoning) stays.
"""

from typing import Any

from job.training.rows import RowError
from job.training.values import has, is_given, is_text, kind, shown, sound, text, unpacked

ROLES = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "function", "observation", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),  # a turn whose content is the call
}
PLAIN_ROLES = ("user", "assistant", "system")
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value", "message", "text")
TEXT_PARTS = ("text", "input_text", "output_text")
OURS = {*ROLE_KEYS, *CONTENT_KEYS, "weight", "tool_calls", "function_call"}

Messages = list[dict[str, Any]]
Trained = tuple[bool, ...] | None  # which messages may be trained; None where the data don't say


def messages(turns: Any, column: str) -> tuple[Messages, Trained]:
    """The messages of a list of turns, and what their weights say. Raises RowError."""
    turns = unpacked(turns)
    if not isinstance(turns, list) or not turns:
        raise RowError(f"`{column}` is {kind(turns)}, not a list of turns")
    found = [_plain(turn) or _message(turn, f"{column}[{index}]") for index, turn in enumerate(turns)]
    if not any("weight" in turn for turn in turns):
        return found, None
    weights = [_weight(turn, f"{column}[{index}]") for index, turn in enumerate(turns)]
    trained = None if weights.count(None) == len(weights) else tuple(weight is not False for weight in weights)
    return found, trained


def tools(value: Any) -> list[Any] | None:
    """The tools of a row: a list, or JSON text of one; its items objects, or JSON text of them. Raises RowError."""
    if value in (None, "", []):
        return None
    listed = unpacked(value)
    listed = [unpacked(tool) for tool in (listed if isinstance(listed, list) else [listed])]
    for index, tool in enumerate(listed):
        if not isinstance(tool, dict):
            raise RowError(f"tools[{index}] is {kind(tool)}, not an object that describes a tool")
    return list(sound(listed, "`tools`")) or None


def _plain(turn: Any) -> dict[str, Any] | None:
    """The turn, where it already is what templates take, as most are: a short way, for rows by the million."""
    if type(turn) is dict and len(turn) == 2 and turn.get("role") in PLAIN_ROLES:
        content = turn.get("content")
        if type(content) is str and (content.isascii() or is_text(content)):
            return turn
    return None


def _message(turn: Any, where: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise RowError(f"{where} is {kind(turn)}, not an object with role and content")
    said = next((turn[key] for key in ROLE_KEYS if turn.get(key) is not None), None)
    if not isinstance(said, str) or not said:
        raise RowError(f"{where} has no role ({has(turn)})")
    role = ROLES.get(said.lower()) or text(said, f"{where}: its role")
    content = _content(next((turn[key] for key in CONTENT_KEYS if turn.get(key) is not None), None), where)
    calls = turn.get("tool_calls") or ([turn["function_call"]] if turn.get("function_call") else [])
    if role == "call":
        called = unpacked(content)
        role, calls, content = "assistant", called if isinstance(called, list) else [called], None
    if content is None and not calls:
        raise RowError(f"{where} has no text content ({has(turn)})")
    message: dict[str, Any] = {"role": role, "content": content}
    if calls:
        message["tool_calls"] = _calls(calls, where)
    rest = {name: value for name, value in turn.items() if name not in OURS and value is not None}
    return {**message, **sound(rest, where)} if rest else message


def _content(value: Any, where: str) -> str | None:
    """Text, or the text of a list of parts; None where there is none."""
    if isinstance(value, list) and value:
        return "".join(_part(part, where) for part in value)
    if value is None or isinstance(value, str):
        return value if value is None else text(value, where)
    raise RowError(f"{where}: its content is {kind(value)}, not text")


def _part(part: Any, where: str) -> str:
    if isinstance(part, str):
        return text(part, where)
    if not isinstance(part, dict):
        raise RowError(f"{where}: its content is a list that holds {kind(part)}, not text")
    if part.get("type", "text") not in TEXT_PARTS or not isinstance(part.get("text"), str):
        raise RowError(f"{where}: its content has a part of type {shown(part.get('type'))}; it must be text")
    return text(part["text"], where)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
    """Calls as templates want them: below `function`, and the arguments an object, which OpenAI writes as JSON text."""
    if not isinstance(calls, list):
        raise RowError(f"{where}: tool_calls is {kind(calls)}, not a list")
    found = []
    for call in map(unpacked, calls):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowError(f"{where}: a call is an object with name and arguments, and this is {kind(call)} without")
        arguments = unpacked(function.get("arguments")) or {}
        if not isinstance(arguments, dict):
            what = "text that is no JSON object" if isinstance(arguments, str) else f"{kind(arguments)}, not an object"
            raise RowError(f"{where}: the arguments of {shown(function['name'])} are {what}")
        named = {"name": function["name"], "arguments": arguments}
        about = {"id": call["id"]} if is_given(call, "id") else {}
        found.append({**sound(about, where), "type": "function", "function": sound(named, where)})
    return found


def _weight(turn: dict[str, Any], where: str) -> bool | None:
    """Whether the turn may be trained, None where it does not say."""
    weight = turn.get("weight")
    if weight is None:
        return None
    if weight not in (0, 1):
        what = f"the text {shown(weight)!r}" if isinstance(weight, str) else shown(weight)
        raise RowError(f"{where}: its weight is {what}; write the number 0 or 1")
    return bool(weight)
