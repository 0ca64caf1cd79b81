"""What ranks found is told once for all of them: by the least figure, and by how many did not get so far."""

from typing import Any

import pytest

from job.doctor.ranks import combined
from job.storage.finding import Status


def check(name: str, figure: float | None = None, seen: str = "") -> dict[str, Any]:
    return {"name": name, "seen": seen or f"{figure}", "figure": figure}


def test_the_slowest_rank_speaks_for_all() -> None:
    (found,) = combined([[check("matrix product", 700.0)], [check("matrix product", 650.0)]])
    assert (found.status, found.seen) == (Status.OK, "650.0; 2 ranks")


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ([[check("matrix product", 700.0)], [check("matrix product", 400.0)]], "holds up all the others"),
        ([[check("memory that is free", 0.99)], [check("memory that is free", 0.5)]], "somebody else uses it"),
        ([[check("bf16", 1.0)], [check("bf16", 0.0)]], "computes in fp32"),
        ([[check("the ranks meet", seen="2 at n0:1")], []], "1 of 2 ranks did not get so far"),
    ],
)
def test_a_rank_that_falls_behind_is_a_warning(said: list[list[dict[str, Any]]], means: str) -> None:
    (found,) = combined(said)
    assert found.status == Status.WARNING and means in found.means


def test_checks_are_told_in_their_order_and_those_of_no_rank_not_at_all() -> None:
    said = [[check("torch", seen="2.13")], [check("torch", seen="2.13"), check("bf16", 1.0)]]
    assert [one.name for one in combined(said)] == ["torch", "bf16"]
    assert list(combined([[], []])) == []
