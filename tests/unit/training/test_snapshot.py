"""A snapshot holds all that a run needs to go on to the same bits, and is whole or not there."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from job.errors import DataError, ExitCode, HardwareError
from job.rundir import RunDir
from job.tiny import make
from job.training import snapshot as snapshot_module
from job.training import snapshot_writer as module
from job.training.buffers import HostBuffer
from job.training.capture import Capturer
from job.training.snapshot import (
    STATE,
    TRAINABLE,
    Snapshot,
    restore_optimizer,
    restore_parameters,
    trainable_parameters,
    write,
)
from job.training.snapshot_writer import SnapshotWriter

ROOT = Path(__file__).parents[3]
BEFORE, AFTER = 3, 3  # steps


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("tiny"))


def full(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)  # its head is tied to the embeddings


def adapted(base: Path, **fields: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(full(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **fields))


def adamw(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.1, fused=True)


def adamw_loop(parameters: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-2, foreach=False)


def adamw_8bit(parameters: list[Any]) -> torch.optim.Optimizer:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    return bitsandbytes.optim.AdamW8bit(parameters, lr=1e-2)


MODELS: dict[str, Callable[[Path], Any]] = {
    "full, tied": full,
    "lora": adapted,
    "dora": lambda base: adapted(base, use_dora=True),
    "modules_to_save": lambda base: adapted(base, modules_to_save=["embed_tokens"]),
}
OPTIMIZERS = {"adamw": adamw, "adamw_loop": adamw_loop, "adamw_8bit": adamw_8bit}


def grouped(model: Any, optimizer: Callable[[list[Any]], torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """With and without weight decay, in another order than the model's own."""
    parameters = list(trainable_parameters(model).values())
    flat = [parameter for parameter in parameters if parameter.ndim < 2]
    wide = [parameter for parameter in parameters if parameter.ndim >= 2]
    groups = [{"params": group, "weight_decay": decay} for group, decay in ((wide, 0.1), (flat, 0.0)) if group]
    return optimizer(groups)


def train(model: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        ids = torch.randint(3, 100, (2, 8))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def capture(step: int, model: Any, optimizer: torch.optim.Optimizer, evaluations: list[dict[str, Any]]) -> Snapshot:
    return Capturer(model, optimizer).capture(step, evaluations, HostBuffer())


def bits(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, bytes]:
    """Everything that decides how it goes on, as bytes."""
    found = {}
    for name, parameter in trainable_parameters(model).items():
        found[name] = parameter.detach().numpy().tobytes()
        for key, value in optimizer.state[parameter].items():
            as_tensor = torch.as_tensor(value)
            found[f"{key}/{name}"] = str(as_tensor.dtype).encode() + as_tensor.numpy().tobytes()
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_fresh_model_goes_on_to_the_same_bits(base: Path, tmp_path: Path, kind: str, optimizer: str) -> None:
    model = MODELS[kind](base)
    own = grouped(model, OPTIMIZERS[optimizer])
    train(model, own, range(BEFORE))
    write(capture(BEFORE, model, own, []), tmp_path / "step")
    at_snapshot = bits(model, own)
    if optimizer == "adamw_8bit" and kind == "full, tied":
        assert any(value[:11] == b"torch.uint8" for value in at_snapshot.values()), "nothing of it is 8-bit"
    train(model, own, range(BEFORE, BEFORE + AFTER))

    other = MODELS[kind](base)
    with torch.no_grad():
        for parameter in trainable_parameters(other).values():
            parameter.add_(1.0)  # nothing may come from anywhere but the snapshot
    its = grouped(other, OPTIMIZERS[optimizer])
    restore_parameters(tmp_path / "step", other)
    restore_optimizer(tmp_path / "step", BEFORE, other, its)
    assert bits(other, its) == at_snapshot
    train(other, its, range(BEFORE, BEFORE + AFTER))
    assert bits(other, its) == bits(model, own)


def test_a_parameter_that_had_no_gradient_in_some_steps_keeps_its_own_count(tmp_path: Path) -> None:
    def made() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        experts = torch.nn.ModuleList([torch.nn.Linear(4, 4) for _ in range(3)])
        return experts, torch.optim.AdamW(experts.parameters(), lr=0.1)

    def step(model: Any, optimizer: torch.optim.Optimizer, expert: int) -> None:
        model[expert](torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, own = made()
    for expert in (0, 0, 1):
        step(model, own, expert)
    write(capture(3, model, own, []), tmp_path / "step")
    other, its = made()
    restore_parameters(tmp_path / "step", other)
    restore_optimizer(tmp_path / "step", 3, other, its)
    for expert in (0, 1, 2):
        step(model, own, expert)
        step(other, its, expert)
    assert bits(other, its) == bits(model, own)


def test_a_snapshot_holds_what_trains_and_nothing_frozen(base: Path, tmp_path: Path) -> None:
    model = adapted(base)
    own = grouped(model, adamw)
    train(model, own, range(1))
    write(capture(1, model, own, [{"step": 1, "eval_loss": 2.5}]), tmp_path / "step")
    with safe_open(tmp_path / "step" / TRAINABLE, framework="pt") as file:
        names = set(file.keys())
    assert names and all("lora_" in name for name in names)
    state = json.loads((tmp_path / "step" / STATE).read_text())
    assert (state["step"], state["evaluations"]) == (1, [{"step": 1, "eval_loss": 2.5}])


def test_tied_weights_are_stored_once(base: Path) -> None:
    model = full(base)
    names = set(capture(1, model, grouped(model, adamw), []).trainable)
    assert len({name for name in names if "embed_tokens" in name or "lm_head" in name}) == 1


def test_a_snapshot_does_not_change_with_the_model_it_was_taken_of(base: Path) -> None:
    model = full(base)
    own = grouped(model, adamw)
    train(model, own, range(1))
    taken = capture(1, model, own, [])
    before = {name: tensor.clone() for name, tensor in {**taken.trainable, **taken.optimizer}.items()}
    train(model, own, range(1, 3))
    for name, tensor in {**taken.trainable, **taken.optimizer}.items():
        assert torch.equal(tensor, before[name])


def test_another_models_snapshot_is_refused_before_anything_is_changed(base: Path, tmp_path: Path) -> None:
    small, large = (
        adapted(base),
        get_peft_model(full(base), LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")),
    )
    few = get_peft_model(full(base), LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    write(capture(1, small, grouped(small, adamw), []), tmp_path / "step")
    for other, named in ((large, "shape"), (few, "parameters are not this model's")):
        before = {name: parameter.detach().clone() for name, parameter in trainable_parameters(other).items()}
        with pytest.raises(DataError, match=named) as caught:
            restore_parameters(tmp_path / "step", other)
        assert caught.value.exit_code == ExitCode.DATA and "\n" not in str(caught.value)
        for name, parameter in trainable_parameters(other).items():
            assert torch.equal(parameter, before[name])


def test_no_pickle_is_written_or_read(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **fields: Any) -> None:
        raise AssertionError("a pickle")

    for name in ("save", "load"):
        monkeypatch.setattr(torch, name, refuse)
    model = full(base)
    own = grouped(model, adamw)
    train(model, own, range(1))
    write(capture(1, model, own, []), tmp_path / "step")
    restore_parameters(tmp_path / "step", model)
    restore_optimizer(tmp_path / "step", 1, model, own)
    assert {path.suffix for path in (tmp_path / "step").iterdir()} == {".safetensors", ".json"}
    assert not any(path.read_bytes()[:2] == b"\x80\x02" for path in (tmp_path / "step").iterdir())


# ---- whole or not there


def small(step: int, size: int = 8) -> Snapshot:
    return Snapshot(step, {"weight": torch.full((size,), float(step))}, {"exp_avg/weight": torch.zeros(size)}, [])


def test_a_newer_best_takes_the_place_of_the_older(tmp_path: Path) -> None:
    for step in (1, 2):
        write(small(step), tmp_path / "best")
    assert json.loads((tmp_path / "best" / STATE).read_text())["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_large_file_is_the_same_in_blocks_and_each_on_the_disk_is_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(small(1, 1000), tmp_path / "whole")
    sizes: list[int] = []
    monkeypatch.setattr(snapshot_module, "BLOCK_BYTES", 999)
    partial = tmp_path / ".parts"
    write(small(1, 1000), tmp_path / "parts", lambda: sizes.append(sum(f.stat().st_size for f in partial.iterdir())))
    files = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "parts").iterdir()}
    assert len(sizes) == sum(-(-len(data) // 999) for data in files.values()) > 10
    assert sizes == sorted(set(sizes)) and sizes[-1] == sum(map(len, files.values()))


def test_a_kill_at_any_moment_of_writing_leaves_no_folder_that_looks_whole(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from pathlib import Path\n"
        "from job.rundir import RunDir; from job.training.snapshot import Snapshot, write\n"
        "run = RunDir(Path(sys.argv[1])).make(); print('up', flush=True)\n"
        "step = 0\n"
        "while True:\n"
        "    step += 1\n"
        "    tensor = torch.full((2_000_000,), float(step))\n"
        "    write(Snapshot(step, {'w': tensor}, {'m/w': tensor}, []), run.snapshot(step))\n"
    )
    run = RunDir(tmp_path / "run").make()
    hidden = False
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(run.path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        whole = len(run.whole_snapshots())
        deadline = time.monotonic() + 60
        while len(run.whole_snapshots()) <= whole and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.004 * turn)
        process.send_signal(signal.SIGKILL)
        process.wait()
        hidden = hidden or any(entry.name.startswith(".") for entry in run.snapshots.iterdir())
        for step, folder in run.whole_snapshots():
            stored = load_file(folder / TRAINABLE)["w"]
            assert stored.shape == (2_000_000,) and bool((stored == step).all())
            assert json.loads((folder / STATE).read_text())["step"] == step
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    assert hidden, "no kill came in the middle of writing"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("a small filesystem can be mounted only as root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("size", [20_000, 10_000, 7_500])  # the first file, the second, or the third does not fit
def test_a_full_disk_is_said_with_its_own_exit_code_and_leaves_room_for_the_cause(full_disk: Path, size: int) -> None:
    run = RunDir(full_disk / "run").make()
    snapshot = small(1, size)
    if size == 7_500:
        snapshot.evaluations.extend({"step": n, "eval_loss": 1.0} for n in range(2000))
    with pytest.raises(HardwareError, match="no space left") as caught:
        write(snapshot, run.snapshot(1))
    assert caught.value.exit_code == ExitCode.HARDWARE and "\n" not in str(caught.value)
    assert list(run.snapshots.iterdir()) == []
    run.write_error(0, caught.value.exit_code, str(caught.value))
    assert run.read_error(0) == (69, str(caught.value))


# ---- the writer


class Held:
    """Stands for `write` and holds the first one until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.really = module.write
        monkeypatch.setattr(module, "write", self)

    def __call__(self, snapshot: Snapshot, target: Path, getting_on: Callable[[], object]) -> None:
        self.begun.set()
        assert self.go_on.wait(60)
        self.really(snapshot, target, getting_on)


def taker(run: RunDir, said: Callable[[int, float], None] = lambda step, seconds: None) -> SnapshotWriter:
    """Takes snapshots of a model of one weight, with memory for many."""
    writer = SnapshotWriter(run, said, buffers=5)
    model = torch.nn.Linear(1, 1, bias=False)
    writer.begin(Capturer(model, torch.optim.SGD(model.parameters())))
    return writer


def written(run: RunDir) -> list[int]:
    return [step for step, _ in run.whole_snapshots()]


def test_the_newest_of_those_that_wait_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, held, said = RunDir(tmp_path / "run").make(), Held(monkeypatch), list[int]()
    writer = taker(run, lambda step, seconds: said.append(step))
    writer.take(1, [])
    assert held.begun.wait(60)
    for step in (2, 3, 4):
        writer.take(step, [])
    assert written(run) == []
    held.go_on.set()
    writer.wait()
    assert written(run) == said == [1, 4]


def test_a_needed_snapshot_is_replaced_by_a_needed_one_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, held = RunDir(tmp_path / "run").make(), Held(monkeypatch)
    writer = taker(run)
    writer.take(1, [])
    assert held.begun.wait(60)
    for step, needed in [(2, True), (3, False), (4, True), (5, False), (6, False)]:
        writer.take(step, [], needed)
    held.go_on.set()
    writer.wait()
    assert written(run) == [1, 4, 6]


@pytest.mark.parametrize("call", ["take", "wait"])
def test_a_write_that_fails_surfaces_in_the_training_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run = RunDir(tmp_path / "run").make()
    failed = threading.Event()

    def fail(snapshot: Snapshot, target: Path, getting_on: Callable[[], object]) -> None:
        failed.set()
        raise HardwareError("no space left")

    monkeypatch.setattr(module, "write", fail)
    writer = taker(run)
    writer.take(1, [])
    assert failed.wait(60)
    with pytest.raises(HardwareError):
        if call == "wait":
            writer.wait()
        for step in range(2, 1000):
            writer.take(step, [])
            time.sleep(0.01)
    assert list(run.snapshots.iterdir()) == []
