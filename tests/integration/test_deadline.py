"""Notices, ends of jobs and deadlines that are too short, as a whole run meets them."""

import json
import signal
import time
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys
from tests.harness import Job
from tests.tiny_runs import TinyRuns
from tests.unit.host.metadata_stub import SPOT, TOKEN, Reply, serving

pytestmark = pytest.mark.slow

LONG = {"train__max_steps": 3000, "checkpoint__every": "15m"}

STANDS_STILL = """
import importlib.abc, importlib.util, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "job.training.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def exec_module(module):
            load(module)
            true = module.Trainer.training_step
            def training_step(self, model, inputs, num_items_in_batch=None):
                if inputs.step == 25:
                    time.sleep(600)
                return true(self, model, inputs, num_items_in_batch)
            module.Trainer.training_step = training_step
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def test_a_spot_notice_commits_before_the_machine_goes(in_folder: TinyRuns) -> None:
    with serving() as stub:
        stub.replies[TOKEN] = Reply(body="token")
        extra = {"SFT_JOB_CLOUD": "ec2", "AWS_EC2_METADATA_SERVICE_ENDPOINT": stub.url}
        job = Job(in_folder.arguments("spot", LONG), in_folder.home, extra)
        job.wait_for("watching for notices of")
        job.wait_for(r"step 3/3000")
        stub.replies[SPOT] = Reply(body=json.dumps({"action": "terminate", "time": stub.iso(90)}))
        assert job.ended() == ExitCode.STOPPED, job.said()
    assert "EC2" in job.said().splitlines()[-1] and len(commit_keys(in_folder.store("spot"))) == 1


def test_the_end_of_the_job_is_a_stop_one_grace_period_before(in_folder: TinyRuns) -> None:
    extra = {"SFT_JOB_END_TIME": str(int(time.time()) + 35)}
    job = Job(in_folder.arguments("ends", {**LONG, "grace": "20s"}), in_folder.home, extra)
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert "stopped by the job's end time" in job.said().splitlines()[-1]


def test_ranks_that_reach_no_boundary_in_time_are_ended_and_the_last_commit_stands(
    in_folder: TinyRuns, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(STANDS_STILL)
    extra = {"PYTHONPATH": str(tmp_path / "site")}
    job = Job(in_folder.arguments("still", {"grace": "6s"}), in_folder.home, extra)
    job.wait_for_commit(20)
    job.wait_for(r"step 24/150  loss")
    job.signal(signal.SIGTERM)
    time.sleep(0.5)
    job.signal(signal.SIGTERM)  # a second signal changes nothing
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert "the ranks did not reach a step boundary in time" in job.said()
    assert "the last commit is commits/0001-00000020.json" in job.said().splitlines()[-1]


def test_a_grace_too_short_for_another_checkpoint_leaves_on_the_last_commit(in_folder: TinyRuns) -> None:
    job = Job(in_folder.arguments("short", {"train__max_steps": 3000, "grace": "2s"}), in_folder.home, {})
    job.wait_for_commit(20)
    job.signal(signal.SIGUSR1)
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert "too few for another checkpoint" in job.said() and commit_keys(in_folder.store("short"))
