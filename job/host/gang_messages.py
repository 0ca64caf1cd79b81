"""What the supervisors of one job's nodes tell each other: JSON, one object a line, checked before it is believed."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PROTOCOL = 1
HELLO_BYTES = 1 << 18  # of the longest line a stranger may send
LINE_BYTES = 64 << 20  # of the longest line of a node that was let in


class Message(BaseModel):
    """`kind` tells them apart. An evaluation may be NaN, and has to come over as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    kind: str

    def line(self) -> bytes:
        return self.model_dump_json().encode() + b"\n"


class Alive(Message):
    """Both ways, every few seconds."""

    kind: Literal["alive"] = "alive"


class Stopping(Message):
    """Both ways: this node was asked to stop, so the job is; or: the job is about to."""

    kind: Literal["stop"] = "stop"
    reason: str
    seconds_left: float = Field(allow_inf_nan=False)  # until this node goes away


# ---- to the leader


class Failed(Message):
    """The node cannot take part, and leaves."""

    kind: Literal["failed"] = "failed"
    code: int
    message: str


class Hello(Message):
    """A node's first words. Another version may say more: it is to be told apart by its version."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["hello"] = "hello"
    protocol: int = PROTOCOL
    version: str
    nodes: int
    node_rank: int
    ranks_per_node: int
    device: str
    trajectory: dict[
        str, Any
    ]  # the fields that decide what is learned, by dotted path, as the node's own config has it
    process: str  # tells this supervisor from any other, its own successor included
    host: str = Field("", max_length=255)  # as people know the machine
    again: bool = False  # it was let in before, and lost the connection
    failed: Failed | None = None  # it comes only to say this: what its ranks would be is not known


class Ready(Message):
    """The inputs of the attempt `nonce` are here, the same as the leader's."""

    kind: Literal["ready"] = "ready"
    nonce: str


class Failing(Message):
    """A rank of this launch failed; the node's others are given the time to say why."""

    kind: Literal["failing"] = "failing"
    nonce: str
    launch: int


class RanksEnded(Message):
    """No rank of this launch is left on the node. `code`, `message` of the first that failed; "" where all is well."""

    kind: Literal["ended"] = "ended"
    nonce: str
    launch: int
    code: int
    message: str = ""
    from_outside: bool = False  # a signal ended it: nothing of its own
    seconds_ago: float = Field(0.0, allow_inf_nan=False)  # by the node's own clock


# ---- from the leader


class Welcome(Message):
    """The hello fits."""

    kind: Literal["welcome"] = "welcome"


class Refused(Message):
    """The hello does not fit. `again`: it may, in a while."""

    kind: Literal["refused"] = "refused"
    code: int
    reason: str
    again: bool = False


class Begin(Message):
    """The attempt that all take part in, and the inputs that all have to have; digests by file name."""

    kind: Literal["begin"] = "begin"
    attempt: int
    nonce: str
    config: dict[str, Any]  # every field that decides the trajectory settled
    fingerprint: str  # of the prepared rows
    base_source: str  # pinned, like the others
    base: dict[str, str]
    tokenizer_source: str
    tokenizer: dict[str, str]
    init_source: str | None = None
    init: dict[str, str] = {}


class Launch(Message):
    """All are ready: start the ranks. `port` is where they meet, on the leader's node."""

    kind: Literal["launch"] = "launch"
    spec: dict[str, Any]
    strategy: str
    port: int = Field(gt=0, lt=65536)


class Settle(Message):
    """A rank failed somewhere: those that are still there have a moment to say why they do too."""

    kind: Literal["settle"] = "settle"
    launch: int


class End(Message):
    """End the ranks of this launch now. `hung`: show where they are first."""

    kind: Literal["end"] = "end"
    launch: int
    hung: bool = False


class Done(Message):
    """The leader's last word: every node leaves with its exit code, for its reason."""

    kind: Literal["done"] = "done"
    code: int
    reason: str


KINDS: dict[str, type[Message]] = {
    kind.model_fields["kind"].default: kind
    for kind in (
        Alive,
        Stopping,
        Hello,
        Ready,
        Failing,
        RanksEnded,
        Failed,
        Welcome,
        Refused,
        Begin,
        Launch,
        Settle,
        End,
        Done,
    )
}


def parse(line: bytes) -> Message:
    """Raises: ValueError, in one short line, when this is no message."""
    try:
        kind = KINDS[json.loads(line)["kind"]]
        return kind.model_validate_json(line, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{kind.__name__.lower()}: {place + ': ' if place else ''}{problem['msg']}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it sent {line[:40]!r}") from error
