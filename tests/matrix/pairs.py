"""Which ways are tried in turn: all pairs, or so few that every strategy still meets every other, and every number of
ranks every other."""

from tests.matrix.laboratory import WAYS, Case, Way

LORA = Case("lora")
FULL = Case("full", {"lora": None})
CASES = (LORA, FULL)
STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
ALL = [(before, after) for before in WAYS for after in WAYS]


def pairwise() -> list[tuple[Way, Way]]:
    """Sixteen pairs: strategies i to j on k to l ranks, (k, l) = (i + j, i + 2j) modulo 4, an invertible map: so all
    sixteen pairs of numbers occur too. Every way stands on either side once."""
    return [
        (Way(STRATEGIES[i], (i + j) % 4 + 1), Way(STRATEGIES[j], (i + 2 * j) % 4 + 1))
        for i in range(4)
        for j in range(4)
    ]
