"""A container's memory limit: what it ends is named, and the run goes on from its last commit."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.container.conftest import Start
from tests.container.containers import Container

pytestmark = [pytest.mark.container, pytest.mark.slow]

LIMIT = "3g"
COUNTERS = "/sys/fs/cgroup/memory/memory.oom_control /sys/fs/cgroup/memory.events"  # of either version
HOOKS = """
import os, pathlib
from transformers import TrainerCallback

DONE = pathlib.Path(os.environ["SFT_JOB_HOME"]) / "hungry"
STEP, CHUNK_BYTES = 30, 1 << 28

class Hungry(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == STEP and not DONE.exists() and "SFT_TEST_FED" not in os.environ:
            DONE.touch()
            held = []
            while True:
                held.append(b"x" * CHUNK_BYTES)

def callbacks(run):
    return [Hungry()]
"""


def hungry(begin: Start, tmp_path: Path, name: str, **container: Any) -> Container:
    hooks = tmp_path / "hooks.py"
    hooks.write_text(HOOKS, encoding="utf-8")
    return begin(
        name,
        "hooks=/etc/sft-job/hooks.py",
        options=(f"--memory={LIMIT}", f"--memory-swap={LIMIT}", f"--volume={hooks}:/etc/sft-job/hooks.py:ro"),
        environment={"SFT_JOB_ALLOW_CODE": "1", **container},
    )


def test_the_rank_that_met_the_limit_is_named_and_the_run_goes_on(begin: Start, tmp_path: Path) -> None:
    container = hungry(begin, tmp_path, "hungry")
    container.wait_for("the kernel may have run out of memory")
    counted = container.inside("sh", "-c", f"cat {COUNTERS} 2>/dev/null || true")
    assert re.search(r"^oom_kill [1-9]", counted, re.MULTILINE), counted
    container.finished()
    said = container.said()
    assert said.index("the kernel may have run out of memory") < said.rindex("step 60/60")


def test_where_the_whole_container_was_ended_the_next_attempt_says_so_and_goes_on(begin: Start, tmp_path: Path) -> None:
    """As Kubernetes has the kernel do it, of control groups' second version: all of its processes at once."""
    first = hungry(begin, tmp_path, "whole")
    first.wait_for("the kernel may have run out of memory")
    first.kill()
    assert first.ended() == 137
    second = hungry(begin, tmp_path, "whole", SFT_TEST_FED="1")
    second.finished()
    said = second.said()
    assert "attempt 1 vanished after" in said and "perhaps for its memory" in said, said
    assert "attempt 2: resumed from step 20" in said, said
