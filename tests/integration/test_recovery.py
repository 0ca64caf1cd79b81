"""A run that is killed and stopped in many ways ends in the very tensors of one that was left alone."""

import json
import os
import pty
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit
from job.storage.store import ObjectStore
from tests.harness import Job, environment, finish
from tests.tiny_runs import TinyRuns, assert_same

pytestmark = pytest.mark.slow


def end_of(store: ObjectStore, attempt: int) -> dict[str, Any]:
    return dict(json.loads(store.get(f"attempts/{attempt:04d}-end.json")))


def interrupted_run(place: TinyRuns, name: str, **fields: Any) -> Job:
    """A rank killed, then a stop asked for, a supervisor killed, then to the end: three attempts."""
    stopped = place.job(name, **fields)
    stopped.wait_for_commit(10)
    os.kill(stopped.ranks()[0], signal.SIGKILL)
    again = int(stopped.wait_for(r"rank 0 was ended by SIGKILL.* begin again in place.*commits/0001-0*(\d+)\.json")[1])
    stopped.wait_for(rf"attempt 1: resumed from step {again} ")
    stopped.wait_for_step(again + 15)
    stopped.signal(signal.SIGTERM)
    assert stopped.ended() == ExitCode.STOPPED
    assert end_of(place.store(name), 1)["code"] == ExitCode.STOPPED

    killed = place.job(name, **fields)
    resumed = int(killed.wait_for(r"resumed from step (\d+) \(commits/0001-")[1])
    killed.wait_for_commit((resumed // 10 + 2) * 10)
    killed.signal(signal.SIGKILL)
    assert killed.ended() == -signal.SIGKILL

    last = place.finish(name, **fields)
    assert "resumed from step" in last.said() and "by attempt 2" in last.said()
    return last


def test_an_adapter_on_s3_is_bit_identical_after_rank_kill_term_and_supervisor_kill(
    on_s3: TinyRuns, tmp_path: Path
) -> None:
    on_s3.finish("alone")
    interrupted_run(on_s3, "interrupted")
    assert_same(on_s3, "alone", "interrupted", tmp_path)
    store = on_s3.store("interrupted")
    assert len(commit_keys(store)) == 3
    again = on_s3.finish("interrupted")
    assert "is finished" in again.said()
    assert not store.list("attempts/0004")
    answer = finish(["ask", f"{on_s3.root}/runs/interrupted", "微调测试"], on_s3.home, on_s3.extra)
    assert answer.stdout().strip() == "我学会了"


def test_full_fine_tuning_in_a_folder_is_bit_identical_after_rank_kill_term_and_supervisor_kill(
    in_folder: TinyRuns, tmp_path: Path
) -> None:
    in_folder.finish("alone", train__learning_rate=1e-3)
    interrupted_run(in_folder, "interrupted", train__learning_rate=1e-3)
    assert_same(in_folder, "alone", "interrupted", tmp_path)


def test_two_ranks_make_the_losses_of_one_and_are_left_by_none(in_folder: TinyRuns) -> None:
    one = in_folder.finish("one", train__max_steps=12, train__global_batch_size=7)
    two = in_folder.finish("two", train__max_steps=12, train__global_batch_size=7, parallel__nproc_per_node=2)
    assert losses(one) == pytest.approx(losses(two), rel=2e-6) and len(losses(one)) == 12


def losses(job: Job) -> list[float]:
    return [float(found) for found in re.findall(r"step \d+/\d+  loss ([\d.]+)", job.said())]


def test_a_flipped_byte_in_the_newest_commit_is_reported_and_the_one_before_is_used(
    in_folder: TinyRuns, tmp_path: Path
) -> None:
    in_folder.finish("alone")
    job = in_folder.job("damaged")
    job.wait_for_commit(40)
    job.signal(signal.SIGKILL)
    job.ended()
    store = in_folder.store("damaged")
    newest, before = commit_keys(store)[:2]
    commit = read_commit(store, newest)
    file = tmp_path / "runs" / "damaged" / commit.folder / "optimizer.safetensors"
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)

    last = in_folder.finish("damaged")
    assert f"commit {newest} is damaged" in last.said() and f"({before}, by attempt 1" in last.said()
    assert [entry.key for entry in store.list("damaged/")] == [f"damaged/{Path(newest).stem}-0002.json"]
    assert_same(in_folder, "alone", "damaged", tmp_path)


def test_commits_of_which_none_can_be_read_are_never_a_silent_restart(in_folder: TinyRuns, tmp_path: Path) -> None:
    job = in_folder.job("lost")
    job.wait_for_commit(10)
    job.signal(signal.SIGTERM)
    assert job.ended() == ExitCode.STOPPED
    for file in (tmp_path / "runs" / "lost" / "checkpoints").rglob("trainable.safetensors"):
        file.write_bytes(b"")
    again = in_folder.finish("lost", code=ExitCode.DATA)
    assert "none can be read whole" in again.said().splitlines()[-1]


def test_a_second_run_of_a_running_run_leaves_with_77_and_disturbs_nothing(in_folder: TinyRuns, tmp_path: Path) -> None:
    first = in_folder.job("busy", train__max_steps=600, checkpoint__every="50 steps")
    first.wait_for(r"step 5/600")
    second = in_folder.finish("busy", code=ExitCode.BUSY, train__max_steps=600)
    assert "is being run by attempt 1" in second.said().splitlines()[-1]
    assert first.process.poll() is None
    first.signal(signal.SIGTERM)
    assert first.ended() == ExitCode.STOPPED


def test_taking_over_fences_the_attempt_before(in_folder: TinyRuns) -> None:
    first = in_folder.job("taken", train__max_steps=2000, checkpoint__every="20 steps")
    first.wait_for_commit(20)
    second = Job(
        [*in_folder.arguments("taken", {"train__max_steps": 2000, "checkpoint__every": "20 steps"}), "--take-over"],
        in_folder.home.parent / "home2",
        in_folder.extra,
    )
    assert first.ended() == ExitCode.FENCED, first.said()
    assert "attempt 2 took over" in first.said().splitlines()[-1]
    second.wait_for(r"resumed from step")
    second.signal(signal.SIGINT)
    assert second.ended() == ExitCode.STOPPED


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_every_stop_signal_to_the_whole_process_group_commits_and_leaves_with_75(
    in_folder: TinyRuns, name: str
) -> None:
    job = in_folder.job("stopped", train__max_steps=3000, checkpoint__every="15m")
    job.wait_for(r"step 3/3000")
    os.killpg(job.process.pid, signal.Signals[name])
    assert job.ended() == ExitCode.STOPPED, job.said()
    assert job.said().splitlines()[-1].startswith(f"sft-job: stopped by {name}; the last commit is commits/0001-")
    assert len(commit_keys(in_folder.store("stopped"))) == 1


def test_a_changed_config_is_refused_field_by_field(in_folder: TinyRuns) -> None:
    in_folder.finish("settled", train__max_steps=2)
    in_folder.finish("settled", code=ExitCode.CONFIG, train__max_steps=3)
    (Path(in_folder.root) / "runs" / "settled" / "final" / "result.json").unlink()
    refused = in_folder.finish("settled", code=ExitCode.CONFIG, train__max_steps=3)
    assert "train.max_steps: 3 here, 2 in run.json" in refused.said().splitlines()[-1]


def test_a_run_whose_terminal_is_closed_commits_and_leaves_with_75(in_folder: TinyRuns) -> None:
    arguments = in_folder.arguments("closed", {"train__max_steps": 3000, "checkpoint__every": "15m"})
    pid, terminal = pty.fork()
    if pid == 0:
        environ = {**environment(in_folder.home), "TERM": "xterm-256color"}
        os.execve(sys.executable, [sys.executable, "-m", "job", *arguments], environ)
    shown = b""
    while not re.search(rb"\d/3000 +loss", shown):
        shown += os.read(terminal, 4096)
    os.close(terminal)  # the kernel sends HUP, and every write to the terminal fails from now on
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        assert time.monotonic() < deadline, os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    assert os.waitstatus_to_exitcode(ended[1]) == ExitCode.STOPPED
    assert len(commit_keys(in_folder.store("closed"))) == 1


def test_commits_without_their_run_json_are_gone_on_from_under_their_own_config_only(in_folder: TinyRuns) -> None:
    killed = in_folder.job("headless")
    killed.wait_for_commit(10)
    killed.signal(signal.SIGKILL)
    killed.ended()
    in_folder.store("headless").delete(["run.json"])
    other = in_folder.finish("headless", ExitCode.DATA, train__learning_rate=2e-2)
    assert "has no run.json, and commits/" in other.said().splitlines()[-1]
    store = in_folder.store("headless")
    assert commit_keys(store)
    assert "resumed from step" in in_folder.finish("headless", train__max_steps=150).said()
