"""What is explored to its end: who meets whom, when, and what may go wrong meanwhile.

Each case takes every interleaving of single storage operations from the end of its prelude on, where `preemptions` is
given those with at most so many switches away from an actor that could go on; with a crash of any actors before and
after every operation; with at most so many `faults` (an answer lost and asked for again, lost for good, or a refusal)
and `stale` listings, at every place. Chosen so that all of them take about two minutes of one core.
"""

from dataclasses import replace

from tests.simulation.life import Script
from tests.simulation.states import Bounds, Case, about_to_claim, has_committed
from tests.simulation.world import Rules

FIRST, SECOND, THIRD = Script("a", steps=(1, 3)), Script("b", steps=(2, 3)), Script("c", steps=(3,))
SHORT, SHORT_TOO = Script("a", steps=(1,)), Script("b", steps=(1,))


ANY = Bounds()
TAKEN_OVER = ((0, has_committed),)  # the first has committed once; what follows meets the second from its beginning
SAME_NUMBER = ((1, about_to_claim), (0, has_committed))  # without put-if-absent: the second saw the first's number free
PATIENT = tuple(replace(script, take_over=False, polls=1) for script in (FIRST, SECOND))

CASES = {
    "two begin at the same moment": Case((SHORT, SHORT_TOO)),
    "two begin without put-if-absent": Case((SHORT, SHORT_TOO), Rules(conditional=False), Bounds(preemptions=3)),
    "one takes over": Case((FIRST, SECOND), Rules(), ANY, TAKEN_OVER),
    "one takes over, keeping more": Case((replace(FIRST, keep=2), replace(SECOND, keep=2)), Rules(), ANY, TAKEN_OVER),
    "one takes over while the first begins again in place": Case(
        (replace(FIRST, replays=True), SECOND), Rules(), ANY, TAKEN_OVER
    ),
    "one takes over without put-if-absent": Case((FIRST, SECOND), Rules(conditional=False), ANY, TAKEN_OVER),
    "two with the same number": Case((FIRST, SECOND), Rules(conditional=False), ANY, SAME_NUMBER),
    "two with the same number, the older nonce last": Case(
        (replace(FIRST, nonce="b"), replace(SECOND, nonce="a")), Rules(conditional=False), ANY, SAME_NUMBER
    ),
    "one takes over, a listing is stale": Case((FIRST, SECOND), Rules(lag=1), Bounds(stale=1), TAKEN_OVER),
    "one takes over, two listings are very stale": Case(
        (FIRST, SECOND), Rules(lag=2), Bounds(preemptions=2, stale=2), TAKEN_OVER
    ),
    "one takes over, an operation fails": Case((FIRST, SECOND), Rules(), Bounds(1, faults=1), TAKEN_OVER),
    "a reader while the owner commits and prunes": Case(
        (replace(FIRST, steps=(1, 2, 3)), Script("b", reads=True)), Rules(), ANY, TAKEN_OVER
    ),
    "a reader whose listing is stale": Case(
        (FIRST, Script("b", reads=True)), Rules(lag=2), Bounds(stale=2), TAKEN_OVER
    ),
    "one alone, an operation fails": Case((FIRST,), Rules(actors=1), Bounds(faults=1)),
    "three": Case((FIRST, SECOND, THIRD), Rules(actors=3), Bounds(preemptions=2), TAKEN_OVER),
    "two that watch each other's heartbeat": Case(PATIENT, Rules(), Bounds(preemptions=1)),
}
