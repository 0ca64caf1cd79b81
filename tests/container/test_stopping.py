"""What stops a container reaches the job: no shell and no init of another kind stands between."""

import re

import pytest

from job.errors import ExitCode
from tests.bucket import Bucket
from tests.container.conftest import Start

pytestmark = [pytest.mark.container, pytest.mark.slow]

GRACE_SECONDS = 90  # far more than it takes: a run that does not hear of it ends with 137
LONG = ("train.max_steps=3000", "train.eval_steps=3000", "checkpoint.every=1000 steps", "train.logging_steps=10")


def test_podman_stop_commits_and_the_same_command_goes_on(begin: Start, store: Bucket) -> None:
    first = begin("stopped", *LONG)
    first.wait_for("step 10/3000")
    assert first.stop(GRACE_SECONDS) == ExitCode.STOPPED, first.said()
    assert "SIGTERM" in first.said()
    keys = store.client().list_objects_v2(Bucket=store.name, Prefix="runs/stopped/commits/")["Contents"]
    step = max(int(found[1]) for key in keys if (found := re.search(r"/\d+-(\d+)\.json$", key["Key"])))
    assert 10 <= step < 3000

    again = begin("stopped", *LONG)
    again.wait_for(f"resumed from step {step} ")
    again.wait_for(rf"step {step // 10 * 10 + 10}/3000")
    assert again.stop(GRACE_SECONDS) == ExitCode.STOPPED, again.said()


def test_tini_is_the_first_process_and_the_job_its_only_child(begin: Start) -> None:
    container = begin("processes", *LONG)
    container.wait_for("attempt 1")
    assert container.inside("cat", "/proc/1/comm").strip() == "tini"
    (child,) = container.inside("cat", "/proc/1/task/1/children").split()
    program, script, verb, *_ = container.inside("cat", f"/proc/{child}/cmdline").split("\0")
    assert (program, script, verb) == ("/opt/sft-job/bin/python", "/opt/sft-job/bin/sft-job", "run")
    assert container.inside("id", "-u") == "10001" and container.inside("id", "-g") == "0"
