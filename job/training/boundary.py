"""What trainer and conductor say to each other: when training is ready, and at each step boundary."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Boundary:
    """What happened in one step, the same on every rank."""

    step: int
    loss: float
    finite: bool
    stop: bool
    checkpoint: bool
    grad_norm: float
    learning_rate: float
    trained_tokens: int


class Conductor(Protocol):
    """What the story of the rank decides at a step boundary."""

    @property
    def over(self) -> bool: ...
    def ready(self) -> None:
        """The model is where it will be trained; nothing is restored yet."""
        ...

    def rehearse(self) -> None:
        """A snapshot that is not kept."""
        ...

    def tried(self, peak_bytes: int | None) -> None:
        """The worst micro-batch fits."""
        ...

    def begun(self) -> None:
        """Everything is restored; no step of this attempt was taken yet."""
        ...

    def stop_requested(self) -> bool: ...
    def checkpoint_due(self, step: int) -> bool: ...
    def step_done(self, boundary: Boundary) -> bool:
        """Returns whether training ends here."""
        ...
