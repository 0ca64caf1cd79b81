"""Every interleaving of some attempts' storage operations, by going through all states that any of them leads to.

A state is the store's content and, for each actor, the answers it got so far: whatever led there, what can follow is
the same, so each state is gone on from once. A crash needs no operation of its own: an actor that is never scheduled
again is one that died before its next operation, and the promises are checked in every state, not only at the ends.

Exhaustive within `Bounds`; `walk` takes one random way. A broken promise comes with its schedule, one token per
operation, `ACTOR[:OUTCOME]`, and with what was done in it.
"""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.simulation.actors import Stage
from tests.simulation.invariants import Broken, Place, Readers, check_kept, check_owners, place
from tests.simulation.life import Note
from tests.simulation.states import Case, Node, State
from tests.simulation.world import Outcome, World, outcomes


@dataclass
class Covered:
    """What an exploration went through."""

    states: int = 0
    ends: int = 0
    schedules: int = 0
    longest: int = 0
    lives: int = 0
    seconds: float = 0.0
    endings: dict[tuple[str, ...], int] = field(default_factory=dict)

    def __str__(self) -> str:
        count = f"{self.schedules:,}" if self.schedules < 10**9 else f"{self.schedules:.2e}"
        return (
            f"{count} schedules of up to {self.longest} operations, in {self.states:,} states, {self.ends:,} of them "
            f"ends; {self.lives:,} lives of actors; {self.seconds:.1f} s"
        )


class Explorer:
    def __init__(self, folder: Path, case: Case) -> None:
        self.rules, self.bounds, self.prelude = case.rules, case.bounds, case.prelude
        self.stage = Stage(folder, case.scripts)
        self.readers = Readers(folder, case.rules.conditional)
        self._checked: set[object] = set()
        self._roots: list[Node] = []

    def start(self) -> State:
        if not self._roots:
            self._roots = [Node(self.stage, actor, None, None) for actor in range(len(self.stage.scripts))]
        nodes, bounds = tuple(self._roots), self.bounds
        nothing = (None,) * len(nodes)
        return State(World.empty(self.rules), nodes, nothing, bounds.faults, bounds.stale, bounds.preemptions, None)

    def begin(self) -> State:
        """After the prelude."""
        state = self.start()
        for actor, until in self.prelude:
            while not until(state.nodes[actor]):
                state = next(new for new in self.following(state) if new.last == actor)
                self.check(state)
        return replace(state, last=None)

    def walk(self, chance: random.Random) -> State:
        """One random schedule, to its end. Raises: Broken."""
        with self.stage.set():
            state = self.begin()
            while ready := self.ready(state):
                stays = state.last in ready and chance.random() < 0.75
                actor = state.last if stays else chance.choice(ready)
                ways = self.ways(state, actor)
                state = self.step(state, actor, ways[0] if chance.random() < 0.9 else chance.choice(ways))
                self.check(state)
        return state

    def everything(self) -> Covered:
        """Raises: Broken, with the shortest schedule that breaks a promise."""
        begun, covered = time.perf_counter(), Covered()
        layer: dict[tuple[Any, ...], list[Any]] = {}
        with self.stage.set():
            first = self.begin()
            layer[first.identity] = [first, 1]
            while layer:
                following: dict[tuple[Any, ...], list[Any]] = {}
                covered.states += len(layer)
                for state, ways in layer.values():
                    ended = True
                    for new in self.following(state):
                        ended = False
                        same = following.setdefault(new.identity, [new, 0])
                        if same[0] is new:
                            self.check(new)
                        same[1] += ways
                    if ended:
                        covered.ends += 1
                        covered.schedules += ways
                        ending = tuple(str(node.notes[-1].value) for node in state.nodes)
                        covered.endings[ending] = covered.endings.get(ending, 0) + 1
                layer = following
                covered.longest += bool(layer)
        covered.lives, covered.seconds = self.stage.lives, time.perf_counter() - begun
        return covered

    def following(self, state: State) -> Iterator[State]:
        for actor in self.ready(state):
            for outcome in self.ways(state, actor):
                yield self.step(state, actor, outcome)

    def ways(self, state: State, actor: int) -> list[Outcome]:
        """How the actor's next operation may turn out; the usual way first."""
        request = state.nodes[actor].request
        assert request is not None
        rules = self.rules if state.stale_left else replace(self.rules, lag=0)
        return list(outcomes(state.world, actor, request, rules, state.faults_left > 0))

    def ready(self, state: State) -> list[int]:
        able = [actor for actor, node in enumerate(state.nodes) if node.request is not None]
        if state.preemptions_left == 0 and state.last in able:
            return [state.last]
        return able

    def step(self, state: State, actor: int, outcome: Outcome) -> State:
        """Raises: Broken where the actor learns something that must not be."""
        request, node = state.nodes[actor].request, state.nodes[actor].after(self.stage, outcome.answer)
        preemptions = state.preemptions_left
        if preemptions is not None and state.last not in (None, actor):
            preemptions -= state.nodes[state.last].request is not None
        stale = outcome.name.startswith("stale")
        new = State(
            outcome.world,
            (*state.nodes[:actor], node, *state.nodes[actor + 1 :]),
            state.floors,
            state.faults_left - (outcome.name != "" and not stale),
            state.stale_left - stale,
            preemptions,
            actor,
            (state.way, f"{actor}:{outcome.name}" if outcome.name else str(actor)),
        )
        floors = list(state.floors)
        try:
            if self.rules.conditional and request is not None:
                check_kept(state.world.store, new.world.store, request.key)
            for note in node.news:
                floors[actor] = self._heed(note, floors[actor], new)
        except Broken as broken:
            raise self._told(broken, new) from None
        return replace(new, floors=tuple(floors))

    @staticmethod
    def newest_acknowledged(state: State) -> Place | None:
        return max((node.acknowledged for node in state.nodes if node.acknowledged), default=None)

    # ---- promises

    def _heed(self, note: Note, floor: Place | None, state: State) -> Place | None:
        """What an actor learned; returns what the commit that it restores has to be at least."""
        if note.kind == "wrong" or (note.kind == "ended" and note.value == "DataError"):
            raise Broken(f"actor {state.last}: {note.value}")
        if note.kind == "restoring":
            return self.newest_acknowledged(state)
        if note.kind == "restored":
            found = place(*note.value) if note.value else None
            if floor is not None and (found is None or found < floor):
                raise Broken(f"actor {state.last} resumed from {found}, though {floor} was acknowledged before")
            return None
        return floor

    def check(self, state: State) -> None:
        """What a later attempt finds if everybody dies in this state. Raises: Broken."""
        newest = self.newest_acknowledged(state)
        owners = frozenset(node.owner for node in state.nodes if node.owner)
        seen = (state.world.digest, newest, owners)
        if seen in self._checked:
            return
        store = state.world.store
        try:
            found = self.readers.newest(store)
            if newest is not None and (found is None or found < newest):
                raise Broken(f"the acknowledged commit {newest} is lost: a later attempt goes on from {found}")
            self.readers.check_results(store)
            self.readers.check_finishable(store, self.stage, newest)
            check_owners(store, owners)
        except Broken as broken:
            raise self._told(broken, state) from None
        self._checked.add(seen)

    def _told(self, broken: Broken, state: State) -> Broken:
        return Broken(f"{broken}\nschedule: {state.schedule}\n" + "\n".join(self.story(state)))

    def story(self, state: State) -> Iterator[str]:
        """What was done in a schedule, line by line."""
        with self.stage.set():
            at = self.start()
            for token in state.schedule.split():
                actor, _, name = token.partition(":")
                node = at.nodes[int(actor)]
                request = node.request
                assert request is not None
                outcome = next(
                    found for found in outcomes(at.world, int(actor), request, self.rules, True) if found.name == name
                )
                after = node.after(self.stage, outcome.answer)
                news = "".join(f"  [{note.kind} {note.value}]" for note in after.news)
                answer = "" if isinstance(outcome.answer, bytes) else str(outcome.answer)
                if request.operation == "list":
                    answer = " ".join(entry.key for entry in outcome.answer)
                yield f"  {token:8} {request.operation} {request.key} -> {answer[:200]}{news}"
                nodes = (*at.nodes[: int(actor)], after, *at.nodes[int(actor) + 1 :])
                at = replace(at, world=outcome.world, nodes=nodes)
