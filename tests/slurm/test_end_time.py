"""The end of the job, as Slurm has it, is the run's deadline, whatever is signalled; and it may move."""

import pytest

from tests.slurm.submitting import Desk
from tests.tiny_runs import TinyRuns

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]


def test_a_limit_that_is_raised_while_the_run_goes_on_is_used_to_the_end(desk: Desk, runs: TinyRuns) -> None:
    pace = desk.slow()
    job = desk.sbatch(runs.arguments("run", {})[1:], "--time=2", "--signal=B:USR1@1", SFT_JOB_GRACE="60")
    job.wait_for(r"this job ends in \d min; it stops by itself 60s before")
    job.cluster.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=30")
    job.wait_for(r"the job's limit was raised: it ends in (29|30) min")
    pace.as_fast_as_it_can()
    assert "stopping" not in job.finished() and job.restarts() == 0
