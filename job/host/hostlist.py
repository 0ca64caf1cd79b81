"""Slurm's way of writing many host names in one: `n[1-3,07],m1` is n1, n2, n3, n07, m1."""

import itertools
import re

from job.errors import ConfigError

PIECE = re.compile(r"\[([^\[\]]*)\]|([^\[\],]+)")
RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand(hostlist: str) -> list[str]:
    """All names, in the order Slurm numbers its nodes; of several brackets the last one runs fastest (man scontrol).

    Raises: ConfigError where it is no such list.
    """
    return [name for word in _words(hostlist) for name in _names(word, hostlist)]


def _words(hostlist: str) -> list[str]:
    """Commas within brackets divide ranges, the others divide words."""
    words = re.split(r",(?![^\[]*\])", hostlist.strip())
    return [word for word in words if word]


def _names(word: str, hostlist: str) -> list[str]:
    parts, at = [], 0
    for piece in PIECE.finditer(word):
        if piece.start() != at:
            break
        parts.append([piece[2]] if piece[2] is not None else _numbers(piece[1], hostlist))
        at = piece.end()
    if at != len(word):
        raise ConfigError(f"{hostlist!r} is no list of hosts as Slurm writes them, like n[1-3,07],m1")
    return ["".join(combined) for combined in itertools.product(*parts)]


def _numbers(ranges: str, hostlist: str) -> list[str]:
    """As wide as the first number of each range is written: 08-10 is 08, 09, 10."""
    numbers: list[str] = []
    for one in ranges.split(","):
        found = RANGE.fullmatch(one.strip())
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise ConfigError(f"{hostlist!r} is no list of hosts as Slurm writes them: {one!r} is no range")
        width = len(found[1])
        numbers += [f"{number:0{width}d}" for number in range(int(found[1]), int(found[2] or found[1]) + 1)]
    return numbers
