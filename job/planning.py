"""What `plan` finds, as JSON holds it: for the page, and for who reads --json."""

from typing import Any, TypedDict


class Model(TypedDict):
    base: str
    kind: str
    parameters: int
    assumed: bool  # from the config alone: the weights bring no headers
    stored_bytes: int
    trained: int  # parameters
    adapters: int  # linear layers that have one; 0: full fine-tuning


class Machine(TypedDict):
    device: str
    gpu: str  # empty on the CPU
    nodes: int
    ranks_per_node: int
    gpu_bytes: int | None
    precision: str


class Data(TypedDict):
    rows: int  # of one epoch
    tokens: int
    measured: bool
    how: str


class Steps(TypedDict):
    steps: int
    steps_per_epoch: int
    done: int  # that are committed
    tokens_per_step: int
    measured: bool


class Memory(TypedDict):
    """Of each GPU, in bytes, with the chosen micro-batches."""

    strategy: str
    parts: dict[str, int]
    total_bytes: int
    host_bytes: int  # of each rank
    fits: bool | None  # None: the memory is not known


class Chosen(TypedDict):
    strategy: str
    offload: str
    token_budget: int
    gradient_checkpointing: bool
    why: str
    warning: str


class Checkpoint(TypedDict):
    bytes: int
    interval: str  # as the config has it: auto, 15m, 500 steps
    interval_seconds: float | None  # that auto would begin with
    blocked_seconds: float
    stored_seconds: float
    measured: bool


class Grace(TypedDict):
    given_seconds: float
    needed_seconds: float | None  # for a new checkpoint; None: how long a step takes is not known
    enough: bool | None


class Hours(TypedDict):
    step_seconds: float | None
    hours: float | None  # of the steps that are left
    measured: bool
    assumed: list[str]


class Launched(TypedDict):
    node: int
    rank: int
    argv: list[str]
    environment: dict[str, str]


class Plan(TypedDict):
    run: str
    begun: bool
    model: Model
    machine: Machine
    data: Data
    steps: Steps
    memory: list[Memory]
    chosen: Chosen
    checkpoint: Checkpoint
    grace: Grace
    disk: dict[str, int]  # bytes on the node that leads, by what takes them
    hours: Hours
    launch: list[Launched]  # of each rank, on request; on top of the job's own environment
    deepspeed: dict[str, Any] | None  # on request, where the strategy has one
