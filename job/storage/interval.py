"""How often to checkpoint: where the time that saving costs and the time that interruptions throw away add up least.

Only what blocks the training loop counts as the cost. An upload beside it delays the commit by a constant, whatever the
interval is, so it moves the floor and not the optimum; unless the processors that upload are those that train.
"""

import math
from collections.abc import Sequence

PRIOR_SECONDS = 6 * 3600.0  # between interruptions, before anything is known: as if one had come after this time
SHORTEST_SECONDS = 30.0
LONGEST_SECONDS = 30 * 60.0
UPLOADS_PER_INTERVAL = 2.0  # at most half of the time is spent uploading


def young_daly(blocking_seconds: float, between_interruptions_seconds: float) -> float:
    """Seconds of training between two checkpoints that waste least.

    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps", Future Generation
    Computer Systems 22 (2006), equation 37: with cost d and mean time between interruptions M, for d < 2M
    sqrt(2dM) (1 + sqrt(d/2M)/3 + (d/2M)/9) - d, else M. Its first term is Young's (1974).
    """
    cost, between = blocking_seconds, between_interruptions_seconds
    if cost >= 2 * between:
        return between
    ratio = cost / (2 * between)
    return math.sqrt(2 * cost * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def expected_between_interruptions(
    uptimes_seconds: Sequence[float], interruptions: int, prior_seconds: float = PRIOR_SECONDS
) -> float:
    """Mean seconds from one interruption to the next, from the attempts so far.

    Time under way over the number of interruptions, both with one imagined interruption after `prior_seconds`: the
    mean of a gamma prior's rate, inverted. `uptimes_seconds`: of all attempts, however they ended.
    """
    return (prior_seconds + sum(uptimes_seconds)) / (1 + interruptions)


def checkpoint_interval(
    blocking_seconds: float, upload_seconds: float, between_seconds: float, upload_slowdown: float = 0.0
) -> float:
    """Seconds from one checkpoint to the next, in [max(30 s, twice the upload), 30 min]; the upper bound wins.

    `upload_seconds`: from the end of the blocking until the commit stands, so writing and hashing too.
    `upload_slowdown`: the share of training that is lost while that goes on; nothing beside GPUs, at most one core of
    all that train where the processor does.
    """
    cost = blocking_seconds + upload_slowdown * upload_seconds
    least = max(SHORTEST_SECONDS, UPLOADS_PER_INTERVAL * upload_seconds)
    return min(max(young_daly(cost, between_seconds), least), LONGEST_SECONDS)
