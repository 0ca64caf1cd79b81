"""What `sft-job submit slurm` says, done as it says it; a container's program hears and knows what it would outside."""

import re
import subprocess

import pytest

from tests.slurm.alone import Alone
from tests.slurm.cluster import Cluster
from tests.slurm.submitting import Batch, Desk
from tests.tiny_runs import TinyRuns

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]

# Like the real one it becomes the program, keeps the environment, and has none of the host's commands.
APPTAINER = """#!/bin/bash
echo "$*" >>apptainer.log
while [ "$1" != image.sif ]; do
    case $1 in
        --env) export "$2"; shift ;;
        --bind | --pwd) shift ;;
    esac
    shift || exit 1
done
shift
env | sort >environment.log
program=$(command -v "$1"); shift
PATH=/usr/bin/none exec "$program" "$@"
"""


def test_what_submit_says_stops_a_job_in_a_container_and_it_comes_back_and_can_be_asked(
    desk: Desk, runs: TinyRuns, cluster: Cluster, alone: Alone
) -> None:
    desk.slow()
    stand_in = desk.folder / "apptainer" / "apptainer"
    stand_in.parent.mkdir()
    stand_in.write_text(APPTAINER, encoding="utf-8")
    stand_in.chmod(0o755)
    env = desk.environment()
    env["PATH"] = f"{stand_in.parent}:{env['PATH']}"

    def shell(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=env, cwd=desk.folder, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    config = desk.folder / "home" / "run.yaml"
    told = shell(f"sft-job submit slurm {config} --runtime apptainer:image.sif --time 20 --extra=--comment=mine")
    said = dict(re.findall(r"^(\S.*?): +(.*)$", told, re.MULTILINE))
    number = re.match(r"job (\d+) ", told)
    assert number, told
    job = Batch(cluster, number[1])
    desk.jobs.append(job)
    job.wait_for_commit(50)
    assert job.facts()["TimeLimit"] == "00:20:00" and job.facts()["Comment"] == "mine"
    assert number[1] in shell(said["where it stands"])
    shell(said["stop, go on later"])
    job.wait_for("SIGUSR1: stopping")
    finished = job.finished()
    assert job.restarts() == 1 and "attempt 2: resumed from step" in finished, finished
    assert "exec --nv --no-home" in (desk.folder / "apptainer.log").read_text(encoding="utf-8")
    inside = (desk.folder / "environment.log").read_text(encoding="utf-8").splitlines()
    assert "PYTHONNOUSERSITE=1" in inside and any(line.startswith("SFT_JOB_END_TIME=") for line in inside)
    assert re.search(r"this job ends in (19|20) min", finished), "what squeue knows is not known inside"
    alone.assert_equals(runs.store("default"))
    assert shell(said["once it is done"]).strip()
