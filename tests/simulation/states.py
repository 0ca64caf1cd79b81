"""Where a schedule can have led to: the store's content, and what each actor was answered so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from job.storage.attempts import Owner
from job.storage.records import ATTEMPT_KEY
from tests.simulation.actors import Stage
from tests.simulation.invariants import Place, place
from tests.simulation.life import Note, Request, Script
from tests.simulation.world import Rules, World


@dataclass(frozen=True)
class Bounds:
    """Of a whole schedule. `preemptions`: switches away from an actor that could go on (None: any number)."""

    preemptions: int | None = None
    faults: int = 0
    stale: int = 0  # listings


Until = Callable[["Node"], bool]


def about_to_claim(node: "Node") -> bool:
    """It has listed the attempts, and takes the number it saw free."""
    return node.request is not None and ATTEMPT_KEY.fullmatch(node.request.key) is not None


def has_committed(node: "Node") -> bool:
    return node.acknowledged is not None


class Node:
    """An actor after some answers: what it will do next, and what it was told for certain until then."""

    def __init__(self, stage: Stage, actor: int, before: "Node | None", answer: Any) -> None:
        self.before, self.answer, self.actor = before, answer, actor
        self.children: dict[Any, Node] = {}
        life = stage.live(actor, self.answers())
        self.request: Request | None = life.request
        known = len(before.notes) if before else 0
        self.notes: tuple[Note, ...] = tuple(life.notes)
        self.news = self.notes[known:]
        self.owner: Owner | None = next((note.value for note in self.notes if note.kind == "claimed"), None)
        self.acknowledged: Place | None = max(
            (place(*note.value) for note in self.notes if note.kind == "committed"), default=None
        )

    def answers(self) -> list[Any]:
        found, node = [], self
        while node.before is not None:
            found.append(node.answer)
            node = node.before
        return found[::-1]

    def after(self, stage: Stage, answer: Any) -> "Node":
        if answer not in self.children:
            self.children[answer] = Node(stage, self.actor, self, answer)
        return self.children[answer]


@dataclass(frozen=True)
class Case:
    """What is explored. `prelude`: who goes first, alone, and until when; the interleavings are of what follows."""

    scripts: tuple[Script, ...]
    rules: Rules = field(default_factory=Rules)
    bounds: Bounds = field(default_factory=Bounds)
    prelude: tuple[tuple[int, Until], ...] = ()


@dataclass(frozen=True, eq=False)
class State:
    world: World
    nodes: tuple[Node, ...]
    floors: tuple[Place | None, ...]  # the newest acknowledged commit when the actor began to restore
    faults_left: int
    stale_left: int
    preemptions_left: int | None
    last: int | None
    way: "tuple[Any, str] | None" = field(default=None)

    @property
    def identity(self) -> tuple[Any, ...]:
        return (
            self.world.identity,
            tuple(map(id, self.nodes)),
            self.floors,
            self.faults_left,
            self.stale_left,
            self.preemptions_left,
            self.last if self.preemptions_left is not None else None,
        )

    @property
    def schedule(self) -> str:
        tokens, way = [], self.way
        while way is not None:
            way, token = way
            tokens.append(token)
        return " ".join(reversed(tokens))
