"""The receipt says what was resumed and whether it was resumed well, and never stands in the way."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from job.config import RunConfig
from job.errors import StorageError
from job.host.topology import Topology
from job.receipt import Receipt, compared, lines, logged_losses, position, verdict
from job.report.segments import Segments
from job.storage.attempts import Owner
from job.storage.checkpoints import read_commit
from job.storage.memory import MemoryStore
from job.storage.records import Commit
from job.storage.store import ObjectStore
from tests.committing import claimed, committed, owner, refusing
from tests.hooked_store import HookedStore

NOW = {"torch": "3", "peft": "1"}


def config(**train: Any) -> RunConfig:
    tree = {"run": "/runs/one", "model": {"base": "/base"}, "data": {"train": ["/d.jsonl"]}, "lora": {}}
    return RunConfig.from_dict({**tree, "train": {"global_batch_size": 8, **train}})


def log(store: ObjectStore, attempt: int, losses: dict[int, float], per_segment: int = 3) -> None:
    segments = Segments(store, attempt)
    for at, (step, loss) in enumerate(losses.items(), start=1):
        segments.add({"kind": "step", "step": step, "loss": loss}, 0.0)
        segments.add({"kind": "evaluation", "step": step, "metrics": {}}, 0.0)
        if at % per_segment == 0:
            segments.flush()
    segments.flush()


def resumed(store: ObjectStore, tmp_path: Path, by: Owner, step: int = 40) -> tuple[str, Commit]:
    key = committed(store, tmp_path, by, step)
    return key, read_commit(store, key)


def receipt_of(
    store: ObjectStore, found: tuple[str, Commit], attempt: int = 2, ranks: int = 2, rows: int = 60
) -> tuple[Receipt, list[str]]:
    said: list[str] = []
    machine = Topology("cpu", ranks, "ddp" if ranks > 1 else "single")
    return Receipt(store, owner(attempt), found, machine, NOW, config(), rows, said.append), said


def steps(receipt: Receipt, losses: dict[int, float]) -> None:
    receipt.wait(30)
    for step, loss in losses.items():
        receipt.step({"kind": "step", "step": step, "loss": loss})
    receipt.wait(30)


def stored(store: ObjectStore, receipt: Receipt) -> dict[str, Any]:
    return dict(json.loads(store.get(receipt.key)))


# ---- what was resumed


@pytest.mark.parametrize(("step", "epoch", "next_row"), [(0, 0, 0), (1, 0, 8), (7, 0, 56), (8, 1, 0), (21, 2, 40)])
def test_the_position_is_the_next_row_of_the_epochs_order(step: int, epoch: int, next_row: int) -> None:
    found = position(config(), 60, step)  # 8 steps per epoch, the last one of 4 rows
    assert (found["epoch"], found["next_row"], found["rows_done"]) == (epoch, next_row, next_row)


def test_the_position_is_that_of_the_schedule() -> None:
    from job.training.batches import Schedule, epoch_order

    schedule = Schedule(60, 8, 3.0, None, 42)
    for step in range(schedule.steps):
        at = position(config(), 60, step)
        assert schedule.rows_of(step + 1)[0] == epoch_order(60, 42, at["epoch"])[at["next_row"]]


def test_a_receipt_names_the_commit_by_its_digest_and_what_changed_since(
    any_store: ObjectStore, tmp_path: Path
) -> None:
    found = resumed(any_store, tmp_path, claimed(any_store))
    receipt, said = receipt_of(any_store, found, ranks=1)
    receipt.begin()
    receipt.wait(30)
    kept = stored(any_store, receipt)
    assert receipt.key == "attempts/0002-resume.json"
    assert kept["digest"] == hashlib.sha256(any_store.get(found[0])).hexdigest()
    assert (kept["commit"], kept["step"], kept["replayed"]) == (found[0], 40, None)
    assert kept["world_size"] == {"then": 2, "now": 1} and kept["strategy"] == {"then": "ddp", "now": "single"}
    assert kept["versions"] == {"torch": {"then": "2", "now": "3"}, "peft": {"then": None, "now": "1"}}
    assert f"step 40 of {found[0]}, sha256 {kept['digest'][:16]}" in said[0]
    assert said[1:] == [
        "  world size: 2 then, 1 now",
        "  strategy: ddp then, single now",
        "  peft: none then, 1 now",
        "  torch: 2 then, 3 now",
    ]


def test_what_is_as_it_was_takes_no_line(tmp_path: Path) -> None:
    store = MemoryStore()
    receipt, _ = receipt_of(store, resumed(store, tmp_path, claimed(store)))
    assert len(lines({**receipt.content, "versions": {}})) == 1


# ---- resumed well


def test_the_first_step_that_was_logged_before_completes_the_receipt(any_store: ObjectStore, tmp_path: Path) -> None:
    log(any_store, 1, {step: 100.0 + step for step in range(31, 48)})
    receipt, said = receipt_of(any_store, resumed(any_store, tmp_path, claimed(any_store)))
    receipt.begin()
    steps(receipt, {41: 141.0, 42: 999.0})
    assert stored(any_store, receipt)["replayed"] == {
        "step": 41,
        "loss": 141.0,
        "logged_before": 141.0,
        "difference": 0.0,
    }
    assert [line for line in said if "resumed" in line] == [
        "resumed well: step 41 gives loss 141.0000, logged before 141.0000"
    ]


def test_where_only_a_later_step_was_logged_that_one_is_compared(tmp_path: Path) -> None:
    store = MemoryStore()
    log(store, 1, {40: 1.0, 50: 2.0})
    receipt, said = receipt_of(store, resumed(store, tmp_path, claimed(store)))
    receipt.begin()
    steps(receipt, {step: float(step) for step in range(41, 60)} | {50: 2.0})
    assert said[-1] == "resumed well: step 50 gives loss 2.0000, logged before 2.0000"


def test_steps_that_come_before_the_log_was_read_are_compared_all_the_same(tmp_path: Path) -> None:
    inner = MemoryStore()
    log(inner, 1, {41: 1.5})
    receipt, said = receipt_of(inner, resumed(inner, tmp_path, claimed(inner)))
    for step in (41, 42):
        receipt.step({"kind": "step", "step": step, "loss": 1.5})
    receipt.begin()
    steps(receipt, {43: 9.0})
    assert said[-1] == "resumed well: step 41 gives loss 1.5000, logged before 1.5000"


def test_another_loss_is_a_warning_with_both_figures(tmp_path: Path) -> None:
    store = MemoryStore()
    log(store, 1, {41: 2.0})
    receipt, said = receipt_of(store, resumed(store, tmp_path, claimed(store)))
    receipt.begin()
    steps(receipt, {41: 2.01})
    assert said[-1].startswith(
        "warning: resumed otherwise than before: step 41 gives loss 2.0100, logged before 2.0000"
    )
    assert stored(store, receipt)["replayed"]["difference"] == pytest.approx(0.005)


@pytest.mark.parametrize(
    ("loss", "well"), [(2.0, True), (2.0019, True), (2.0021, False), (float("nan"), False), (float("inf"), False)]
)
def test_a_thousandth_is_the_line_between_both(loss: float, well: bool) -> None:
    assert verdict(compared(41, loss, 2.0)).startswith("resumed well") is well


def test_nothing_logged_beyond_the_commit_leaves_the_receipt_as_it_was_and_says_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    log(store, 1, dict.fromkeys(range(1, 41), 1.0))
    receipt, said = receipt_of(store, resumed(store, tmp_path, claimed(store)))
    receipt.begin()
    steps(receipt, {41: 1.0, 42: 1.0})
    assert stored(store, receipt)["replayed"] is None
    assert not [line for line in said if "resumed" in line]


# ---- whose log counts


def test_the_newest_attempt_that_logged_a_step_counts(tmp_path: Path) -> None:
    store = MemoryStore()
    _, commit = resumed(store, tmp_path, claimed(store))
    log(store, 1, {41: 1.0, 42: 1.0, 43: 1.0})
    log(store, 2, {41: 2.0, 42: 2.0})
    log(store, 3, {41: 3.0})
    assert logged_losses(store, 3, commit) == {41: 2.0, 42: 2.0, 43: 1.0}


def test_attempts_before_the_commits_own_are_not_looked_at(tmp_path: Path) -> None:
    store = MemoryStore()
    log(store, 1, {41: 1.0})
    _, commit = resumed(store, tmp_path, claimed(store, 2))
    log(store, 2, {41: 2.0})
    assert logged_losses(store, 3, commit) == {41: 2.0}


def test_only_the_end_of_a_long_log_is_read(tmp_path: Path) -> None:
    inner = MemoryStore()
    _, commit = resumed(inner, tmp_path, claimed(inner), 990)
    log(inner, 1, {step: float(step) for step in range(1, 1001)}, per_segment=1)
    read: list[str] = []
    store = HookedStore(inner, before=lambda operation, key: read.append(key) if operation == "get" else None)
    assert logged_losses(store, 2, commit) == {step: float(step) for step in range(991, 1001)}
    assert len(read) == 11


def test_lines_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    store = MemoryStore()
    _, commit = resumed(store, tmp_path, claimed(store))
    store.put(
        "events/0001-00001.jsonl", b'{"kind": "step", "step": 41}\nnonsense\n{"kind": "step", "step": 42, "loss": 1}'
    )
    assert logged_losses(store, 2, commit) == {42: 1.0}


# ---- never in the way


@pytest.mark.parametrize("operation", ["get", "put", "list"])
def test_a_store_that_refuses_is_said_once_and_ends_nothing(tmp_path: Path, operation: str) -> None:
    inner = MemoryStore()
    log(inner, 1, {41: 1.0})
    found = resumed(inner, tmp_path, claimed(inner))
    store = HookedStore(inner, before=refusing({operation}, error=StorageError("no access")))
    receipt, said = receipt_of(store, found)
    receipt.begin()
    steps(receipt, {41: 1.0, 42: 1.0, 43: 1.0})
    assert [line for line in said if "not complete" in line] == ["the resume receipt is not complete: no access"]
