"""Ranks are real processes here: the first that fails names the cause, and whatever happens none is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.errors import ConfigError, ExitCode, HardwareError, RankCrashed
from job.host import launcher
from job.host.launch_plan import rank_environment
from job.host.launcher import STOP_SIGNALS, Ended, Ranks, start
from job.host.topology import Topology
from job.rundir import RunDir

ROOT = Path(__file__).parents[3]
MODULE = "tests.unit.host.standin_rank"
MARGIN_SECONDS = 20.0


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDir]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = RunDir(tmp_path / "run").make()
    yield made
    assert marked(made) == {}, "a process was left"


def ranks(run: RunDir, *acts: str) -> Ranks:
    for rank, words in enumerate(acts):
        (run.path / f"do-{rank}").write_text(words)
    return Ranks(run, Topology("cpu", len(acts), "ddp"), module=MODULE)


def end_of(started: Ranks) -> Ended:
    deadline = time.monotonic() + MARGIN_SECONDS
    while (ended := started.ended()) is None:
        assert time.monotonic() < deadline, "the ranks did not end"
        time.sleep(0.05)
    return ended


def finished(run: RunDir, *acts: str) -> Ended:
    with ranks(run, *acts) as started:
        return end_of(started)


def marked(run: RunDir) -> dict[int, str]:
    """Living processes of this run."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(run.path).encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + MARGIN_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# ---- how they start


def test_ranks_start_with_the_stop_signals_blocked_and_this_process_without(run: RunDir) -> None:
    assert finished(run, "mask").code == ExitCode.DONE
    blocked = set((run.path / "mask-0").read_text().split())
    assert blocked >= {number.name for number in STOP_SIGNALS}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(STOP_SIGNALS)


def test_a_stop_signal_to_a_rank_does_not_end_it(run: RunDir) -> None:
    with ranks(run, "mark:up wait:go", "mark:up wait:go") as started:
        wait_until(lambda: (run.path / "up-0").exists() and (run.path / "up-1").exists())
        for pid in started.alive.values():
            for number in STOP_SIGNALS:
                os.kill(pid, number)
        time.sleep(0.2)
        assert started.ended() is None
        (run.path / "go").touch()
        assert end_of(started) == Ended(0, None)


def test_every_rank_gets_torchruns_contract() -> None:
    for rank in range(3):
        environment = rank_environment(Topology("cpu", 3, "ddp"), rank, 1234)
        assert [environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == [
            str(rank),
            str(rank),
            "3",
            "3",
        ]
        assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("127.0.0.1", "1234")


def test_a_single_rank_hears_of_no_group_from_us_or_from_an_outer_launcher(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "7")
    (run.path / "do-0").write_text("environment")
    with Ranks(run, Topology("cpu", 1, "single"), module=MODULE) as started:
        assert end_of(started) == Ended(0, None)
    names = (run.path / "environment").read_text().split()
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & set(names)
    assert "TORCHELASTIC_USE_AGENT_STORE" not in names, "no rank would open a store"
    assert {"SFT_JOB_DEVICE", "SFT_JOB_RUN_DIR"} <= set(names)


def test_threads_are_shared_out_among_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert rank_environment(Topology("cpu", 2, "ddp"), 0, 1)["OMP_NUM_THREADS"] == "3"
    assert rank_environment(Topology("cpu", 8, "ddp"), 0, 1)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert rank_environment(Topology("cpu", 2, "ddp"), 0, 1)["OMP_NUM_THREADS"] == "2"


def test_what_a_program_prints_is_in_its_log(run: RunDir) -> None:
    process = start("job.does_not_exist", [], run, "prepare", {})
    assert process.wait(MARGIN_SECONDS) == 1
    assert "job.does_not_exist" in run.log("prepare").read_text()


def test_ranks_that_cannot_all_be_started_leave_none_behind(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []
    real = launcher.started

    def second_fails(*arguments: object) -> subprocess.Popen[bytes]:
        if began:
            raise OSError("Resource temporarily unavailable")
        process = real(*arguments)  # type: ignore[arg-type]
        began.append(process.pid)
        return process

    monkeypatch.setattr(launcher, "started", second_fails)
    with pytest.raises(OSError, match="unavailable"), ranks(run, "sleep:300", "sleep:300"):
        raise AssertionError("it did not start")
    assert began and marked(run) == {}


# ---- how they end


def test_all_done_is_done(run: RunDir) -> None:
    assert finished(run, "sleep:0.1", "") == Ended(0, None)


def test_all_stopped_is_stopped_though_one_was_through(run: RunDir) -> None:
    assert finished(run, "raise:stopped", "raise:stopped") == Ended(75, None)
    assert finished(run, "", "raise:stopped") == Ended(75, None)


@pytest.mark.parametrize(
    ("acts", "kind", "named"),
    [
        (["raise:config", "sleep:300"], ConfigError, "rank 0: a wrong field"),
        (["sleep:300", "raise:hardware"], HardwareError, "rank 1: no space left"),
        (["sleep:300", "kill:SIGKILL"], RankCrashed, "rank 1 was ended by SIGKILL.*memory"),
        (["kill:SIGSEGV", "sleep:300"], RankCrashed, "rank 0 was ended by SIGSEGV"),
        (["exit:9", "sleep:300"], RankCrashed, "rank 0 left with code 9"),
        (["sleep:300", "exit:69"], HardwareError, "rank 1 left with code 69"),
        (["kill:SIGABRT", "sleep:300"], RankCrashed, "rank 0 was ended by SIGABRT"),
        (["kill:SIGRTMIN", "sleep:300"], RankCrashed, "rank 0 was ended by"),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_names_the_cause(
    run: RunDir, acts: list[str], kind: type[Exception], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SETTLE_SECONDS", 0.3)
    with ranks(run, *acts) as started:
        ended = end_of(started)
        assert all(process.returncode is not None for process in started._processes)
    assert ended.error is not None and ended.code == ended.error.exit_code
    assert isinstance(ended.error, kind)
    with pytest.raises(kind, match=named):
        raise ended.error


def test_the_others_have_two_seconds_to_say_what_they_know(run: RunDir) -> None:
    with ranks(run, "exit:9", "sleep:300") as started:
        wait_until(lambda: started._processes[0].poll() is not None)
        seen = time.monotonic()
        assert end_of(started).code == ExitCode.CRASHED
        assert 2 <= time.monotonic() - seen < MARGIN_SECONDS


@pytest.mark.parametrize(
    ("acts", "named"),
    [
        # the peer's broken connection comes after the cause, from a lower rank
        (["wait:failed-1 sleep:0.3 raise:echo", "mark:failed raise:config"], "rank 1: a wrong field"),
        (["wait:failed-1 sleep:0.3 kill:SIGABRT", "mark:failed raise:config"], "rank 1: a wrong field"),
        # both are seen at once
        (["raise:echo", "kill:SIGKILL"], "rank 1 was ended by SIGKILL"),
        # who had stopped in order is no cause
        (["raise:stopped", "wait:error-0.json raise:config"], "rank 1: a wrong field"),
    ],
)
def test_the_cause_is_named_and_not_its_echo(run: RunDir, acts: list[str], named: str) -> None:
    with ranks(run, *acts) as started:
        for process in started._processes:
            process.wait(MARGIN_SECONDS)
        ended = end_of(started)
    assert ended.error is not None and named in str(ended.error)


def test_a_single_ranks_message_needs_no_number(run: RunDir) -> None:
    assert str(finished(run, "raise:config").error) == "a wrong field"


# ---- what is left


@pytest.mark.parametrize("child", ["child", "child:detached"])
@pytest.mark.parametrize("last", ["", "raise:config", "kill:SIGKILL"])
def test_children_of_a_rank_end_with_it_and_other_children_of_this_process_do_not(
    run: RunDir, child: str, last: str
) -> None:
    other = subprocess.Popen(["sleep", "300"])
    try:
        finished(run, f"{child} {last}", "")
        assert marked(run) == {}
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_leaving_the_block_ends_ranks_that_still_train(run: RunDir) -> None:
    with pytest.raises(KeyError), ranks(run, "child mark:up sleep:300", "sleep:300"):
        wait_until(lambda: (run.path / "up-0").exists())
        raise KeyError("whatever")
    assert marked(run) == {}


def zombies_of_ours() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if stat[0] == "Z" and int(stat[1]) == os.getpid():
            found.add(int(entry.name))
    return found


def test_no_dead_descendant_stays_unreaped(run: RunDir) -> None:
    before = zombies_of_ours()  # other tests' orphans come to this process too: Ranks made it their subreaper
    finished(run, "child:detached", "")
    assert zombies_of_ours() <= before


def test_a_killed_supervisor_takes_its_ranks_with_it_at_once(run: RunDir) -> None:
    (run.path / "do-0").write_text("mark:up sleep:300")
    (run.path / "do-1").write_text("mark:up sleep:300")
    code = (
        "import sys, time; from pathlib import Path; from job.host.launcher import Ranks\n"
        "from job.host.topology import Topology; from job.rundir import RunDir\n"
        f"with Ranks(RunDir(Path(sys.argv[1])), Topology('cpu', 2, 'ddp'), module={MODULE!r}): time.sleep(300)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT)
    try:
        wait_until(lambda: (run.path / "up-0").exists() and (run.path / "up-1").exists())
        assert len(marked(run)) == 2
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not marked(run))
