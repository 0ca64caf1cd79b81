"""A snapshot is copied into memory that is used again and again, laid out as the files it becomes."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.host_memory import available_bytes
from job.rundir import RunDir
from job.training import snapshot_writer as module
from job.training.buffers import HostBuffer
from job.training.capture import Capturer
from job.training.packed import Packed, kinds, pack
from job.training.snapshot import OPTIMIZER, TRAINABLE, Snapshot, Tensors, write
from job.training.snapshot_writer import SnapshotWriter


def experts(count: int = 3) -> tuple[torch.nn.ModuleList, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.ModuleList([torch.nn.Linear(8, 4) for _ in range(count)])
    return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def train(model: torch.nn.ModuleList, optimizer: torch.optim.Optimizer, used: int | None = None) -> None:
    """One step, of the first `used` experts."""
    torch.stack([expert(torch.ones(2, 8)).sum() for expert in list(model)[:used]]).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def copies(model: torch.nn.ModuleList, optimizer: torch.optim.Optimizer) -> tuple[Tensors, Tensors]:
    named = dict(model.named_parameters())
    moments = {
        f"{kind}/{name}": optimizer.state[parameter][kind].clone()
        for name, parameter in named.items()
        for kind in ("exp_avg", "exp_avg_sq")
        if parameter in optimizer.state
    }
    return {name: parameter.detach().clone() for name, parameter in named.items()}, moments


def same(found: Tensors, expected: Tensors) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


# ---- the file


def test_a_packed_file_is_to_the_byte_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {
        "b/權重": torch.arange(3).bfloat16(),
        "a": torch.randn(2, 3),
        "transposed": torch.randn(3, 5).T,
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 4),
        "codes": torch.arange(5, dtype=torch.uint8),
        "counts": torch.arange(2),
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs")
    assert bytes(pack(tensors).file.numpy()) == (tmp_path / "theirs").read_bytes()
    save_file({}, tmp_path / "empty")
    assert bytes(pack({}).file.numpy()) == (tmp_path / "empty").read_bytes()


def test_every_type_survives_the_file(tmp_path: Path) -> None:
    from job.training.packed import NAMES

    tensors = {str(dtype): torch.arange(7).to(dtype) for dtype in NAMES}
    (tmp_path / "all").write_bytes(bytes(pack(tensors).file.numpy()))
    found = load_file(tmp_path / "all")
    assert {name: tensor.dtype for name, tensor in found.items()} == {str(dtype): dtype for dtype in NAMES}
    assert same(
        {n: t.view(torch.uint8) for n, t in found.items()}, {n: t.view(torch.uint8) for n, t in tensors.items()}
    )


# ---- the buffer


def test_the_next_snapshot_lies_where_the_last_one_lay(tmp_path: Path) -> None:
    model, optimizer = experts()
    capturer, buffer = Capturer(model, optimizer), HostBuffer()
    places = set()
    for step in (1, 2, 3):
        train(model, optimizer)
        expected = copies(model, optimizer)
        taken = capturer.capture(step, [], buffer)
        assert isinstance(taken.trainable, Packed) and isinstance(taken.optimizer, Packed)
        places.add((taken.trainable.file.data_ptr(), taken.optimizer.file.data_ptr()))
        write(taken, tmp_path / "step")
        assert same(load_file(tmp_path / "step" / TRAINABLE), expected[0])
        assert same(load_file(tmp_path / "step" / OPTIMIZER), expected[1])
    assert len(places) == 1


def test_a_buffer_grows_with_what_the_optimizer_keeps(tmp_path: Path) -> None:
    model, optimizer = experts()
    capturer, buffer = Capturer(model, optimizer), HostBuffer()
    for step, used in ((1, 1), (2, 2), (3, 3)):
        train(model, optimizer, used)
        expected = copies(model, optimizer)
        write(capturer.capture(step, [], buffer), tmp_path / "step")
        assert same(load_file(tmp_path / "step" / TRAINABLE), expected[0])
        found = load_file(tmp_path / "step" / OPTIMIZER)
        odd = {name: tensor for name, tensor in found.items() if name.startswith("step/")}
        assert same({name: tensor for name, tensor in found.items() if name not in odd}, expected[1])
        counts = {name: int(tensor) for name, tensor in odd.items()}
        late = {f"step/{at}.{part}": step - at for at in range(1, used) for part in ("weight", "bias")}
        assert counts == late


def test_copying_leaves_the_number_of_threads_as_it_was() -> None:
    model, optimizer = experts()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Capturer(model, optimizer).capture(0, [], HostBuffer())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- the writer's buffers


class Held:
    """Stands for `write` and holds each one until told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        monkeypatch.setattr(module, "write", self)

    def __call__(self, snapshot: Snapshot, target: Path, getting_on: Callable[[], object]) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=60)
        write(snapshot, target, getting_on)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    yield (held := Held(monkeypatch))
    for _ in range(100):
        held.go_on.release()


def stored(run: RunDir, step: int) -> tuple[Tensors, Tensors]:
    folder = run.snapshot(step)
    return load_file(folder / TRAINABLE), load_file(folder / OPTIMIZER)


def test_training_goes_on_while_a_snapshot_is_written_and_another_is_taken(tmp_path: Path, held: Held) -> None:
    run = RunDir(tmp_path / "run").make()
    writer = SnapshotWriter(run, lambda step, seconds: None)
    model, optimizer = experts()
    writer.begin(Capturer(model, optimizer))
    expected = {}
    for step in (1, 2, 3, 4):  # 1 is being written, 2 and 3 wait until 4 is there
        train(model, optimizer)
        expected[step] = copies(model, optimizer)
        writer.take(step, [])
        if step == 1:
            assert held.begun.acquire(timeout=60)
    train(model, optimizer)
    for _ in range(2):
        held.go_on.release()
    writer.wait()
    assert [step for step, _ in run.whole_snapshots()] == [1, 4]
    for step in (1, 4):
        assert all(same(found, wanted) for found, wanted in zip(stored(run, step), expected[step], strict=True))


@pytest.mark.parametrize("left", ["memory for one", "memory for two"])
def test_where_memory_is_short_the_next_snapshot_waits_for_the_writer(
    tmp_path: Path, held: Held, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda: 0 if left == "memory for one" else 10**9)
    run = RunDir(tmp_path / "run").make()
    writer = SnapshotWriter(run, lambda step, seconds: None)
    model, optimizer = experts()
    writer.begin(Capturer(model, optimizer))
    train(model, optimizer)
    writer.take(1, [])
    assert held.begun.acquire(timeout=60)
    train(model, optimizer)
    expected = copies(model, optimizer)
    second = threading.Thread(target=writer.take, args=(2, []))
    second.start()
    second.join(timeout=0.3 if left == "memory for one" else 60)
    assert second.is_alive() == (left == "memory for one")
    held.go_on.release()
    second.join(timeout=60)
    assert not second.is_alive()
    held.go_on.release()
    writer.wait()
    assert all(same(found, wanted) for found, wanted in zip(stored(run, 2), expected, strict=True))


def test_the_first_snapshots_memory_is_made_beside_the_second_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []
    fit = HostBuffer.fit

    def seen(self: HostBuffer, *arguments: object) -> object:
        before = self.size_bytes
        found = fit(self, *arguments)  # type: ignore[arg-type]
        if self.size_bytes != before:
            fitted.append(threading.current_thread().name)
        return found

    monkeypatch.setattr(HostBuffer, "fit", seen)
    run = RunDir(tmp_path / "run").make()
    writer = SnapshotWriter(run, lambda step, seconds: None)
    model, optimizer = experts()
    writer.begin(Capturer(model, optimizer))
    for step in (1, 2, 3):
        train(model, optimizer)
        writer.take(step, [])
        writer.wait()
    assert fitted == ["snapshot-buffer"]


def test_the_best_is_kept_apart_and_before_the_snapshot_that_names_it(tmp_path: Path, held: Held) -> None:
    run = RunDir(tmp_path / "run").make()
    writer = SnapshotWriter(run, lambda step, seconds: None)
    model, optimizer = experts()
    writer.begin(Capturer(model, optimizer))
    train(model, optimizer)
    expected = copies(model, optimizer)
    writer.take(1, [{"step": 1, "eval_loss": 1.0}], needed=True)
    assert held.begun.acquire(timeout=60)
    held.go_on.release()
    assert held.begun.acquire(timeout=60)
    assert run.best.exists() and not run.whole_snapshots()
    held.go_on.release()
    writer.wait()
    train(model, optimizer)
    writer.take(2, [{"step": 1, "eval_loss": 1.0}])
    held.go_on.release()
    writer.wait()
    assert same(load_file(run.best / TRAINABLE), expected[0])
    assert load_file(run.best / OPTIMIZER) == {}
    assert [step for step, _ in run.whole_snapshots()] == [1, 2]


def test_an_out_of_memory_buffer_ends_the_run_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: HostBuffer, *arguments: object) -> None:
        raise MemoryError("no memory for a snapshot")

    monkeypatch.setattr(HostBuffer, "fit", refuse)
    writer = SnapshotWriter(RunDir(tmp_path / "run").make(), lambda step, seconds: None)
    model, optimizer = experts()
    writer.begin(Capturer(model, optimizer))
    train(model, optimizer)
    with pytest.raises(MemoryError):
        writer.take(1, [])


# ---- how much memory there is

GIB = 2**30


def machine(root: Path, available: int, groups: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/cgroup": groups,
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_limit_the_machines_memory_counts(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": f"{GIB}\n"}
    assert available_bytes(machine(tmp_path, 5 * GIB, "0::/\n", files)) == 5 * GIB


def test_the_tightest_of_nested_control_groups_counts_and_page_cache_is_as_good_as_free(tmp_path: Path) -> None:
    outer, inner = "sys/fs/cgroup/job", "sys/fs/cgroup/job/step"
    files = {
        f"{outer}/memory.max": f"{4 * GIB}\n",
        f"{outer}/memory.current": f"{3 * GIB}\n",
        f"{outer}/memory.stat": f"anon {GIB}\ninactive_file {GIB}\n",
        f"{inner}/memory.max": f"{8 * GIB}\n",
        f"{inner}/memory.current": f"{GIB}\n",
    }
    assert available_bytes(machine(tmp_path, 64 * GIB, "0::/job/step\n", files)) == 2 * GIB


def test_a_limit_of_the_first_version_of_control_groups_counts(tmp_path: Path) -> None:
    at = "sys/fs/cgroup/memory"  # in a container: the group's path on the host is not there
    files = {f"{at}/memory.limit_in_bytes": f"{2 * GIB}\n", f"{at}/memory.usage_in_bytes": f"{GIB}\n"}
    assert available_bytes(machine(tmp_path, 64 * GIB, "5:cpu:/a\n4:memory:/docker/abc\n", files)) == GIB


def test_where_nothing_can_be_read_there_is_no_room(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) == 0


def test_the_names_and_shapes_decide_whether_a_layout_still_fits() -> None:
    one, other = {"a": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}
    buffer = HostBuffer()
    first = buffer.fit(kinds(one), [])
    assert buffer.fit(kinds(one), []) is first
    assert buffer.fit(kinds(other), [])[0]["a"].shape == (3, 2)


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_the_optimizers_on_offer_heed_a_hook_before_their_step_in_the_trainers_wrapping(kind: str) -> None:
    """What holds the next step back until a GPU's copy is through."""
    from accelerate import Accelerator

    parameters = [torch.nn.Parameter(torch.ones(8))]
    if kind == "adamw_8bit":
        optimizer = pytest.importorskip("bitsandbytes").optim.AdamW8bit(parameters)
    else:
        optimizer = torch.optim.AdamW(parameters, fused=True)
    wrapped = Accelerator(cpu=True).prepare_optimizer(optimizer)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # patches `step`
    heard: list[float] = []
    optimizer.register_step_pre_hook(lambda *_: heard.append(float(parameters[0].detach()[0])))
    parameters[0].grad = torch.ones(8)
    wrapped.step()
    assert heard == [1.0] and float(parameters[0].detach()[0]) != 1.0
