"""In whatever order, whoever dies at whatever moment: no acknowledged commit is lost, and nothing is ever mixed."""

from pathlib import Path

import pytest

from tests.simulation.cases import CASES
from tests.simulation.explore import walks
from tests.simulation.search import Explorer
from tests.simulation.states import Case

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_schedule_keeps_every_promise(case: Case, tmp_path: Path) -> None:
    """In every state that any schedule within the bounds leads to, that is: with everybody dead right there.

    - A fresh attempt finds a commit at least as new as the newest that was acknowledged to anyone, whole, and can go
      on from it to a result; attempts order before steps.
    - An attempt never resumed from less than what was acknowledged before it began to look, and met no damage.
    - `final/result.json` and the record of the prepared rows name whole files of one attempt, and all of its folder.
    - No two attempts hold the same claim, and at most one of them is not fenced.
    """
    covered = Explorer(tmp_path, case).everything()
    print(covered)
    print(dict(sorted(covered.endings.items())))
    assert any("done" in ending for ending in covered.endings), "nobody ever finished: nothing was tried"


@pytest.mark.parametrize("seed", range(1, 5))
def test_random_schedules_of_up_to_four_attempts_keep_every_promise(seed: int) -> None:
    """With every kind of trouble at once; for longer: `python -m tests.simulation.explore --seconds 600`."""
    assert walks(seed, count=3) == 3
