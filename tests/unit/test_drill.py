"""What the drill calls a pass: it hits where it says, and nothing that went wrong is taken for well."""

import io
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from job.config import load_config
from job.drill.experiment import judge
from job.drill.ground import ground, place_named
from job.drill.outcome import Outcome, tensor_digests
from job.drill.plan import ALL, QUICK, STRIKE_STEP, Blow, Case, Phase, chosen
from job.drill.processes import held
from job.drill.starts import Started, start
from job.drill.story import refuse_no_place_for
from job.drill.striker import Notes, Standing, Striker
from job.drill.struck_store import StruckStore
from job.drill.table import Board, line, table, working
from job.errors import ConfigError, ExitCode, Stopped
from job.host.preemption import Stop
from job.storage.memory import MemoryStore

REFERENCE = Outcome({"a": "F32 [2] 1234"}, [{"step": 16, "eval_loss": 1.5}], 4)
KILLED = Case(Phase.MID_UPLOAD, Blow.KILL)

# ---- the plan


def test_quick_hits_every_phase_and_strikes_every_blow_in_at_most_twelve_runs() -> None:
    assert {case.phase for case in QUICK} == set(Phase)
    assert {case.blow for case in QUICK} == set(Blow)
    assert len(QUICK) + 1 <= 12 and len(set(QUICK)) == len(QUICK) and set(QUICK) <= set(ALL)


def test_all_are_all_combinations_but_a_rank_where_there_is_none() -> None:
    missing = {Case(*pair) for pair in itertools.product(Phase, Blow)} - set(ALL)
    assert missing == {Case(Phase.PULL, Blow.KILL_RANK), Case(Phase.PREPARE, Blow.KILL_RANK)}
    assert chosen(False, []) == ALL and chosen(True, []) == QUICK


@pytest.mark.parametrize("text", ["mid-upload:KILL", "mid-upload:kill", "mid upload:KILL"])
def test_only_names_an_experiment_as_people_write_it(text: str) -> None:
    assert chosen(False, [text]) == (KILLED,)


def test_only_a_phase_means_all_its_signals() -> None:
    assert [case.blow for case in chosen(False, ["pull"])] == [Blow.TERM, Blow.USR1, Blow.KILL]


@pytest.mark.parametrize(("text", "said"), [("uplaod:KILL", "mid-upload"), ("pull:KILL-rank", "TERM, USR1, KILL")])
def test_only_refuses_what_there_is_not_and_says_what_there_is(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen(False, [text])


def test_quick_and_only_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--quick"):
        chosen(True, ["pull"])


# ---- the verdict


def note(kind: str, at: float, **fields: int) -> dict[str, Any]:
    return {"kind": kind, "at": at, **fields}


def started(code: int, *notes: dict[str, Any], began: float = 0.0, left: tuple[str, ...] = ()) -> Started:
    return Started(code, began, 5.0, list(notes), list(left), ["sft-job: the cause"])


FIRST = [note("training", 2, step=0), note("step", 3, step=17)]
HIT = note("hit", 4, step=17, commit=8, snapshot=16)
AGAIN = [note("training", 12, step=8), note("step", 13, step=9)]


def judged(**changes: Any) -> list[str]:
    """The problems of an experiment that was all right but for what is changed."""
    given: dict[str, Any] = {
        "case": KILLED,
        "starts": [started(-9, *FIRST, HIT), started(0, *AGAIN, began=10.0)],
        "finished": [False, True],
        "found": REFERENCE,
        "reference": REFERENCE,
    }
    return judge(**{**given, **changes}).problems


def test_a_run_that_was_killed_and_finished_as_if_it_had_not_been_passes_with_its_figures() -> None:
    facts = judge(
        KILLED, [started(-9, *FIRST, HIT), started(0, *AGAIN, began=10.0)], [False, True], REFERENCE, REFERENCE
    )
    assert facts.passed, facts.problems
    assert (facts.resumed_step, facts.lost_steps, facts.bound_steps, facts.resume_seconds) == (8, 9, 9, 3.0)
    assert facts.codes == [-9, 0] and facts.said == []


def test_a_phase_that_was_never_hit_is_no_pass() -> None:
    problems = judged(starts=[started(0, *FIRST)], finished=[True])
    assert "mid-upload was never hit, nothing was tried" in problems


def test_another_bit_in_a_tensor_is_no_pass_and_is_named() -> None:
    other = Outcome({"a": "F32 [2] 1235"}, REFERENCE.evaluations, 4)
    assert judged(found=other) == ["1 of 1 final tensors are not bit-identical, the first is a"]


def test_other_evaluations_are_no_pass() -> None:
    assert judged(found=Outcome(REFERENCE.tensors, [], 4))


def test_a_commit_that_does_not_verify_is_no_pass() -> None:
    damaged = Outcome(REFERENCE.tensors, REFERENCE.evaluations, 4, ("commits/1: x is missing",))
    assert judged(found=damaged) == ["does not verify: commits/1: x is missing"]


def test_an_acknowledged_commit_that_is_lost_is_no_pass() -> None:
    again = [note("training", 12, step=0), note("step", 13, step=1)]
    starts = [started(-9, *FIRST, HIT), started(0, *again, began=10.0)]
    assert judged(starts=starts) == ["17 steps were lost, at most 9 may be"]


def test_a_stop_that_was_asked_for_may_lose_no_step_taken_after_the_signal_either() -> None:
    first = [*FIRST, HIT, note("step", 5, step=18)]
    again = [note("training", 12, step=17), note("step", 13, step=18)]
    case = Case(Phase.MID_UPLOAD, Blow.TERM)
    starts = [started(75, *first), started(0, *again, began=10.0)]
    assert judged(case=case, starts=starts) == ["1 step was lost, at most 0 may be"]


def test_a_rank_that_is_killed_may_lose_nothing_that_lay_whole_on_the_disk() -> None:
    case = Case(Phase.MID_UPLOAD, Blow.KILL_RANK)
    for resumed, problems in ((16, []), (8, ["9 steps were lost, at most 1 may be"])):
        again = [note("training", 12, step=resumed), note("step", 13, step=resumed + 1)]
        assert judged(case=case, starts=[started(0, *FIRST, HIT, *again)], finished=[True]) == problems


def test_exit_0_without_a_result_and_a_result_without_exit_0_are_no_pass() -> None:
    assert any("no result is committed" in problem for problem in judged(finished=[False, False]))
    assert any("a result is committed" in problem for problem in judged(finished=[True, True]))


def test_a_code_that_tells_the_scheduler_something_else_is_no_pass_and_its_cause_is_told() -> None:
    starts = [started(-9, *FIRST, HIT), started(ExitCode.DATA, began=10.0)]
    (first, *_) = judged(starts=starts, finished=[False, False], found=None)
    assert first == "start 2 left with 65 where 0 was due: the cause"
    assert judged(case=Case(Phase.STEP, Blow.TERM), starts=[started(70, *FIRST, HIT), *[started(0, *AGAIN)]])


def test_a_process_that_is_left_is_no_pass() -> None:
    starts = [started(-9, *FIRST, HIT, left=("python -m job.train",)), started(0, *AGAIN, began=10.0)]
    assert judged(starts=starts) == ["still there after its end: python -m job.train"]


def test_tensors_are_told_apart_by_name_type_shape_and_bytes(tmp_path: Path) -> None:
    zero = np.zeros(4, np.float32)
    variants: list[dict[str, Any]] = [
        {"a": zero},
        {"b": zero},
        {"a": zero.reshape(2, 2)},
        {"a": zero.view(np.int32)},
        {"a": zero + np.float32(1e-45)},
        {"a": -zero},
    ]
    found = []
    for at, tensors in enumerate(variants):
        save_file(tensors, tmp_path / f"{at}.safetensors", metadata={"written": str(at)})
        found.append(tensor_digests(tmp_path / f"{at}.safetensors"))
    assert all(one != other for one, other in itertools.combinations(found, 2))
    save_file(variants[0], tmp_path / "again.safetensors", metadata={"format": "pt"})
    assert tensor_digests(tmp_path / "again.safetensors") == found[0]


# ---- hitting


@pytest.fixture
def rank() -> Iterator[subprocess.Popen[bytes]]:
    """A process that may be killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def struck(phase: Phase, pid: int, notes: Path) -> tuple[StruckStore, MemoryStore]:
    standing, inner = Standing(step=17, rank=pid), MemoryStore("drill")
    striker = Striker(Case(phase, Blow.KILL_RANK), Notes(notes), standing)
    return StruckStore(inner, striker, standing), inner


@pytest.mark.parametrize(("phase", "acknowledged"), [(Phase.BEFORE_RECORD, 8), (Phase.AFTER_RECORD, STRIKE_STEP)])
def test_the_blow_falls_on_its_side_of_the_record_of_the_second_checkpoint(
    rank: subprocess.Popen[bytes], tmp_path: Path, phase: Phase, acknowledged: int
) -> None:
    store, _ = struck(phase, rank.pid, tmp_path / "notes")
    store.put_if_absent("commits/0001-00000008.json", b"first")
    assert rank.poll() is None
    store.put_if_absent(f"commits/0001-{STRIKE_STEP:08d}.json", b"second")
    assert rank.wait(30) == -signal.SIGKILL
    (hit,) = Notes.read(tmp_path / "notes")
    assert (hit["kind"], hit["step"], hit["commit"]) == ("hit", 17, acknowledged)


def test_the_blow_falls_while_the_second_file_of_the_second_checkpoint_is_on_its_way(
    rank: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    store, inner = struck(Phase.MID_UPLOAD, rank.pid, tmp_path / "notes")
    (tmp_path / "file").write_bytes(b"content")
    for key in ("step-8-aa/1", "step-8-aa/2", f"step-{STRIKE_STEP}-bb/1"):
        store.upload(tmp_path / "file", f"checkpoints/0001-x/{key}")
        assert rank.poll() is None
    seen: list[bool] = []
    key = f"checkpoints/0001-x/step-{STRIKE_STEP}-bb/2"
    store.upload(tmp_path / "file", key, lambda count: seen.append(not inner.list(key)))
    assert rank.wait(30) == -signal.SIGKILL
    assert seen == [True], "the caller's own progress goes on, before the file is there"


def test_a_blow_falls_once(rank: subprocess.Popen[bytes], tmp_path: Path) -> None:
    striker = Striker(Case(Phase.STEP, Blow.KILL_RANK), Notes(tmp_path / "notes"), Standing(rank=rank.pid))
    for phase in (Phase.EVALUATION, Phase.STEP, Phase.STEP):
        striker.reached(phase)
    assert len(Notes.read(tmp_path / "notes")) == 1 and rank.wait(30) == -signal.SIGKILL


def test_a_process_stands_still_while_it_is_held_and_goes_on_afterwards(tmp_path: Path) -> None:
    counting = "import sys, time\nfor n in range(10**6): open(sys.argv[1], 'w').write(str(n)); time.sleep(0.001)"
    process = subprocess.Popen([sys.executable, "-c", counting, str(tmp_path / "count")])
    try:
        while not (tmp_path / "count").exists():
            time.sleep(0.01)
        with held(process.pid) as still:
            assert still
            before = (tmp_path / "count").stat().st_mtime_ns
            time.sleep(0.1)
            assert (tmp_path / "count").stat().st_mtime_ns == before
        until = time.monotonic() + 60
        while (tmp_path / "count").stat().st_mtime_ns == before:
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    with held(process.pid) as still:
        assert not still


# ---- its surroundings


def test_what_a_start_leaves_behind_is_found_said_and_ended(tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text(
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    )
    environment = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        done = start(["leaves"], tmp_path / "home", Stop(1.0), None)
    finally:
        os.environ.pop("PYTHONPATH")
        if environment is not None:
            os.environ["PYTHONPATH"] = environment
    assert done.code == 0 and len(done.left) == 1 and "time.sleep(600)" in done.left[0]


def test_a_stop_ends_a_start_at_once(tmp_path: Path) -> None:
    stop = Stop(1.0)
    stop.request("TERM")
    with pytest.raises(Stopped, match="stopped by TERM"):
        start(["http.server", "0"], tmp_path / "home", stop, None)


def test_the_tiny_job_is_a_right_config_and_its_folders_are_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    with ground(str(tmp_path / "new" / "store"), Stop(1.0), print) as at:
        place = at.place("one")
        config = load_config(place.config)
        assert config.run == f"{at.uri}/one" and at.uri.startswith(str(tmp_path / "new" / "store" / "drill-"))
        place.store.put("commits/x", b"y")
        assert Path(at.uri).is_dir()
    assert not (tmp_path / "new").exists() and not list((tmp_path / "home").iterdir())


def test_a_store_that_was_there_keeps_all_that_is_not_the_drills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFT_JOB_HOME", str(tmp_path / "home"))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "thesis").write_text("mine")
    with ground(str(tmp_path / "store"), Stop(1.0), print) as at:
        at.store("one").put("x", b"y")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["thesis"]


@pytest.mark.parametrize("where", ["", "hf://org/name", "memory://x", "gs://bucket/x"])
def test_what_no_run_can_live_in_is_refused(where: str) -> None:
    with pytest.raises(ConfigError):
        place_named(where)


def test_a_report_that_cannot_be_written_is_refused_before_minutes_are_spent(tmp_path: Path) -> None:
    refuse_no_place_for(str(tmp_path / "report.json"))
    refuse_no_place_for("-")
    for place in (tmp_path, tmp_path / "missing" / "report.json"):
        with pytest.raises(ConfigError, match="--json"):
            refuse_no_place_for(str(place))


def test_what_an_experiment_does_now_is_shown_while_it_lasts() -> None:
    board = Board((KILLED,))
    for word, shown in (("running", "running 0s"), ("again", "again 0s")):
        board.begin(KILLED, word)
        console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
        console.print(board)
        assert shown in console.export_text()
    board.end(KILLED, None)
    assert board.running == {}


def test_what_takes_a_while_is_a_line_in_a_log() -> None:
    out = io.StringIO()
    with working(Console(file=out), "making a tiny model"):
        assert out.getvalue() == "making a tiny model\n"


def test_the_table_shows_passes_failures_what_is_left_to_do_and_what_cannot_be_and_fits_a_terminal() -> None:
    facts = judge(
        KILLED, [started(-9, *FIRST, HIT), started(0, *AGAIN, began=10.0)], [False, True], REFERENCE, REFERENCE
    )
    bad = judge(Case(Phase.STEP, Blow.TERM), [started(70)], [False], None, REFERENCE)
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(table(ALL, {KILLED: facts, bad.case: bad}, {}))
    rows = {text.split()[0]: text for text in console.export_text().splitlines()}
    assert rows["mid-upload"].split() == ["mid-upload", "waits", "waits", "pass", "9", "3.0s", "waits"]
    assert rows["step"].split()[1] == "FAIL" and rows["pull"].split()[-1] == "n/a"
    assert "…" not in "".join(rows.values())
    told = "mid-upload KILL pass 2 starts (-9, 0), resumed from step 8, lost 9 of at most 9, going again after 3.0 s"
    assert " ".join(line(facts).split()) == told
