"""Random schedules in random worlds, for as long as one likes; a broken promise ends it with what was done.

python -m tests.simulation.explore --seconds 600 --seed 1
python -m tests.simulation.explore --only 4711        the world and the schedule of one seed again
python -m tests.simulation.explore --case three       one of the cases that the tests take, in full
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.cases import CASES
from tests.simulation.invariants import Broken
from tests.simulation.life import Script
from tests.simulation.search import Explorer
from tests.simulation.states import Bounds, Case
from tests.simulation.world import Rules

WALKS = 30  # in one world, whose actors' lives so far are remembered


def random_case(chance: random.Random) -> Case:
    """Two to four attempts in a world with every kind of trouble."""
    count = chance.choice((2, 2, 3, 3, 4))
    last = chance.choice((2, 3, 4))
    nonces = chance.sample("abcdef", count)
    scripts = tuple(
        Script(
            nonce,
            steps=(*sorted(chance.sample(range(1, last), chance.randrange(last))), last),
            keep=chance.choice((1, 1, 2)),
            take_over=chance.random() < 0.8,
            polls=chance.choice((0, 1, 2)),
            replays=chance.random() < 0.2,
        )
        for nonce in nonces
    )
    rules = Rules(actors=count, conditional=chance.random() < 0.7, lag=chance.choice((0, 0, 1, 3)))
    return Case(scripts, rules, Bounds(faults=chance.choice((0, 1, 3)), stale=99 if rules.lag else 0))


def walks(seed: int, count: int = WALKS) -> int:
    """Random schedules of the seed's world. Returns how many. Raises: Broken."""
    chance = random.Random(seed)
    case = random_case(chance)
    with tempfile.TemporaryDirectory() as folder:
        explorer = Explorer(Path(folder), case)
        for _ in range(count):
            try:
                explorer.walk(chance)
            except Broken as broken:
                raise Broken(f"seed {seed}: {case}\n{broken}") from None
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one seed")
    parser.add_argument("--case", choices=CASES)
    told = parser.parse_args()
    try:
        if told.case:
            case = CASES[told.case]
            with tempfile.TemporaryDirectory() as folder:
                print(Explorer(Path(folder), case).everything())
        elif told.only is not None:
            print(f"{walks(told.only)} schedules of seed {told.only}: every promise kept")
        else:
            begun, done, seed = time.monotonic(), 0, told.seed
            while time.monotonic() - begun < told.seconds:
                done += walks(seed)
                seed += 1
            print(f"{done:,} random schedules in {seed - told.seed} worlds (seeds {told.seed} to {seed - 1}): all kept")
    except Broken as broken:
        sys.exit(str(broken))


if __name__ == "__main__":
    main()
