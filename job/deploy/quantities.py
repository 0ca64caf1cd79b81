"""Kubernetes' quantities: 8, 500m, 32Gi, 1e3. Source: k8s.io/apimachinery, pkg/api/resource."""

import re
from decimal import Decimal
from math import ceil

SUFFIXES = {
    "": Decimal(1),
    **{letter: Decimal(10) ** -power for power, letter in ((9, "n"), (6, "u"), (3, "m"))},
    **{letter: Decimal(1000) ** power for power, letter in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate(("K", "M", "G", "T", "P", "E"), 1)},
}
FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
GIB = 1024**3


def quantity(text: object) -> Decimal | None:
    """Its value; None: that is no quantity."""
    match = FORM.fullmatch(str(text)) if isinstance(text, str | int | float) and not isinstance(text, bool) else None
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(f"{number}{exponent or ''}") * SUFFIXES[suffix or ""]


def whole_gib(text: str) -> int:
    """Rounded up. Raises: ValueError."""
    value = quantity(text)
    if value is None:
        raise ValueError(text)
    return ceil(value / GIB)


def whole_mib(text: str) -> int:
    """Rounded down, as services take no fraction. Raises: ValueError."""
    value = quantity(text)
    if value is None:
        raise ValueError(text)
    return int(value * 1024 // GIB)
