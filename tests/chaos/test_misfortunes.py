"""Full disks, clocks that jump, bad memory, planted pickles: one clear end or none at all, and the run goes on."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit, restore
from job.storage.pruning import prune
from job.storage.store import open_store
from tests.chaos.experiment import LAYOUTS, Laboratory
from tests.chaos.judge import judge_commits, launches, newest_step, tensors, trajectory
from tests.chaos.observing import SUPERVISOR, Deed
from tests.chaos.zombie import start_with
from tests.committing import claimed, committed, content

pytestmark = pytest.mark.slow

STOPPED_AT_7 = Deed("rank-0", r"event step 7$", "SIGTERM", SUPERVISOR)
ONE = LAYOUTS["one"]


def assert_as_if_alone(laboratory: Laboratory, name: str) -> None:
    alone, store = laboratory.left_alone("one"), laboratory.store(name)
    assert trajectory(launches(laboratory.folder / name / "seen" / "home" / "ledger")) == alone.rows
    assert tensors(store, laboratory.folder / name / "final") == alone.tensors


def stopped_run(laboratory: Laboratory, name: str, **special: Any) -> int:
    """A run that was stopped at step 7 or a little later; returns its newest step."""
    job = laboratory.start(name, ONE, deed=STOPPED_AT_7, **special)
    assert job.ended() == ExitCode.STOPPED, job.said()
    return newest_step(laboratory.store(name))


# ---- full disks


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], Path]]:
    """Mounts a filesystem of a given size."""
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small filesystem to fill up")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    return filler


def test_a_disk_that_fills_up_under_the_snapshots_is_69_and_the_last_commit_stands(
    laboratory: Laboratory, small_disk: Callable[[Path, str], Path]
) -> None:
    home = small_disk(laboratory.folder / "full-snapshots" / "home", "80m")
    held = Deed("rank-0", r"event step 8$", "SIGSTOP", "rank-0")
    run = start_with(laboratory, "full-snapshots", ONE, held)
    deadline = time.monotonic() + 60
    store = laboratory.store("full-snapshots")
    while newest_step(store) < 6 and time.monotonic() < deadline:  # its uploads go on
        time.sleep(0.02)
    filler = fill(home)
    run.go_on()
    assert run.job.ended() == ExitCode.HARDWARE
    assert newest_step(store) == 6
    filler.unlink()
    again = laboratory.start("full-snapshots", ONE)
    assert again.ended() == ExitCode.DONE, again.said()
    assert "resumed from step 6" in again.said()
    assert_as_if_alone(laboratory, "full-snapshots")


def test_a_disk_that_fills_up_during_the_pull_is_69_and_the_run_folder_is_as_it_was(
    laboratory_on_s3: Laboratory, small_disk: Callable[[Path, str], Path]
) -> None:
    home = small_disk(laboratory_on_s3.folder / "full-cache" / "home", "400m")
    held = Deed(SUPERVISOR, r"open .*/cache/blobs/", "SIGSTOP", nth=2)
    run = start_with(laboratory_on_s3, "full-cache", ONE, held)
    filler = fill(home)
    run.go_on()
    assert run.job.ended() == ExitCode.HARDWARE, run.job.said()
    assert "free some" in run.job.said().splitlines()[-1]
    assert laboratory_on_s3.store("full-cache").list("") == []
    filler.unlink()
    again = laboratory_on_s3.start("full-cache", ONE)
    assert again.ended() == ExitCode.DONE, again.said()
    assert_as_if_alone(laboratory_on_s3, "full-cache")


# ---- clocks

DAY_SECONDS = 86_400.0


@pytest.mark.parametrize("by_seconds", [DAY_SECONDS, -DAY_SECONDS])
def test_a_clock_that_jumps_by_a_day_during_an_attempt_and_between_two_changes_nothing(
    laboratory: Laboratory, by_seconds: float
) -> None:
    name = f"clock{by_seconds:+.0f}"
    stopped_run(laboratory, name, clock_seconds=by_seconds, clock_from=r"after put_if_absent commits/|event step 3$")
    again = laboratory.start(name, ONE, clock_seconds=-by_seconds, clock_from="")
    assert again.ended() == ExitCode.DONE, again.said()
    assert_as_if_alone(laboratory, name)
    judge_commits(laboratory.store(name))


def test_a_clock_that_jumps_by_a_day_does_not_make_a_living_attempt_look_dead(laboratory: Laboratory) -> None:
    first = start_with(laboratory, "clock-busy", ONE, Deed("rank-0", r"event step 4$", "SIGSTOP", "rank-0"))
    second = laboratory.start("clock-busy", ONE, "home2", clock_seconds=DAY_SECONDS, clock_from="")
    assert second.ended() == ExitCode.BUSY, second.said()
    first.go_on()
    assert first.job.ended() == ExitCode.DONE, first.job.said()


# ---- pruning beside a reader


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_reader_beside_commits_and_prunes_always_gets_a_whole_commit(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    uri = str(tmp_path / "run") if place == "folder" else f"{request.getfixturevalue('s3').uri}/run"
    store, steps = open_store(uri), 150 if place == "folder" else 20
    owner = claimed(store)
    newest = committed(store, tmp_path, owner, 1)
    over, problems, read = threading.Event(), list[BaseException](), list[int]()

    def keep_reading() -> None:
        reader, target = open_store(uri), tmp_path / "reader"
        try:
            while not over.is_set():
                found = restore(reader, 99, target, lambda said: problems.append(AssertionError(said)))
                assert found is not None, "a fresh start beside a run that has commits"
                assert {path.name: path.read_bytes() for path in target.iterdir()} == content(found[1].step)
                read.append(found[1].step)
        except BaseException as error:
            problems.append(error)

    reading = threading.Thread(target=keep_reading)
    reading.start()
    for step in range(2, steps):
        newest = committed(store, tmp_path, owner, step)
        prune(store, owner, newest, 1, None, print)
    while len(read) < 3 and reading.is_alive():
        time.sleep(0.01)
    over.set()
    reading.join()
    assert not problems, problems
    assert read == sorted(read) and not store.list("damaged/")


# ---- planted pickles


class _Opened:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(self._path), "w")


PLANTED = ("pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "evil.pkl")


def test_a_planted_pickle_is_never_opened(laboratory: Laboratory) -> None:
    name, opened = "pickles", laboratory.folder / "pickle-was-opened"
    evil = pickle.dumps(_Opened(opened))
    stopped_run(laboratory, name)
    folder = laboratory.folder / "runs" / name
    for key in commit_keys(laboratory.store(name)):
        record = json.loads((folder / key).read_text(encoding="utf-8"))
        for planted in PLANTED:
            (folder / record["folder"] / planted).write_bytes(evil)
            record["files"].append({"name": planted, "size": len(evil), "sha256": hashlib.sha256(evil).hexdigest()})
        (folder / key).write_text(json.dumps(record), encoding="utf-8")
    prepared = json.loads(next(folder.glob("prepared/*.json")).read_text(encoding="utf-8"))
    for below in ("checkpoints", "final/0002", "final", prepared["folder"], "."):
        (folder / below).mkdir(parents=True, exist_ok=True)
        for planted in PLANTED:
            (folder / below / planted).write_bytes(evil)
    again = laboratory.start(name, ONE, record=True)
    assert again.ended() == ExitCode.DONE, again.said()
    assert not opened.exists()
    seen = (laboratory.folder / name / "seen" / "home" / "lines-rank-0").read_text(encoding="utf-8")
    assert [line for line in seen.splitlines() if line.endswith(PLANTED)] == []
    assert_as_if_alone(laboratory, name)
    pickle.loads(evil).close()
    assert opened.exists(), "this test could not have failed"


# ---- bad memory


@pytest.mark.parametrize(("unnoticed", "code"), [(False, ExitCode.HARDWARE), (True, ExitCode.DATA)])
def test_bad_memory_on_one_node_condemns_no_commit(laboratory: Laboratory, unnoticed: bool, code: ExitCode) -> None:
    """Where the node can tell that what came was whole it blames itself; where it cannot, others verify anew."""
    name = f"memory-{code}"
    newest, store = stopped_run(laboratory, name), laboratory.store(name)
    before = commit_keys(store)
    bad = laboratory.start(name, ONE, "bad-node", flip=r"checkpoints/.*optimizer", flip_unnoticed=unnoticed)
    assert bad.ended() == code, bad.said()
    assert len(store.list("damaged/")) == (len(before) if unnoticed else 0) and commit_keys(store) == before
    good = laboratory.start(name, ONE)
    assert good.ended() == ExitCode.DONE, good.said()
    assert f"resumed from step {newest} ({before[0]}" in good.said()
    assert_as_if_alone(laboratory, name)


def test_bad_memory_that_spoils_the_newest_commit_takes_the_one_before_and_leaves_the_newest_to_others(
    laboratory: Laboratory,
) -> None:
    name = "memory-newest"
    newest, store = stopped_run(laboratory, name), laboratory.store(name)
    keys = commit_keys(store)
    bad = laboratory.start(
        name,
        ONE,
        "bad-node",
        flip=f"{read_commit(store, keys[0]).folder}/trainable",
        flip_unnoticed=True,
        deed=Deed("rank-0", r"event training", "SIGKILL", SUPERVISOR),
    )
    assert bad.ended() == -signal.SIGKILL, bad.said()
    assert f"commit {keys[0]} is damaged" in bad.said() and f"({keys[1]}" in bad.said()
    good = laboratory.start(name, ONE)
    assert good.ended() == ExitCode.DONE, good.said()
    assert f"resumed from step {newest} ({keys[0]}" in good.said()
    assert_as_if_alone(laboratory, name)
