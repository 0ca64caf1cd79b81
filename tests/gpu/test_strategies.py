"""Every strategy on the GPUs that are there, one or many: a run goes from one to the next and answers at the end."""

import signal
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.host.devices import visible_gpus
from job.tiny import make, write_demo_chat
from tests.harness import Job, finish, sets

GPUS = visible_gpus()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(GPUS == 0, reason="no CUDA device: there is no /dev/nvidia*"),
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make(tmp_path / "base")
    write_demo_chat(tmp_path / "chat.jsonl")
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
run: {tmp_path}/run
model: {{base: {tmp_path}/base, precision: bf16}}
data: {{train: [{tmp_path}/chat.jsonl], eval: 0.1, max_length: 64}}
lora: {{r: 8, alpha: 16, dropout: 0.0}}
train: {{max_steps: 120, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 40}}
checkpoint: {{every: 10 steps}}
samples: {{prompts: ["微调测试"], max_new_tokens: 12}}
""",
        encoding="utf-8",
    )
    return path


def stop_at(arguments: list[str], home: Path, step: int) -> None:
    job = Job(arguments, home)
    job.wait_for_step(step)
    job.signal(signal.SIGTERM)
    assert job.ended() in (ExitCode.STOPPED, ExitCode.DONE), job.said()


@pytest.mark.parametrize("ranks", sorted({1, GPUS}))
@pytest.mark.parametrize("fields", [{}, {"lora": None, "train.learning_rate": 1e-3}], ids=["lora", "full"])
def test_a_run_goes_through_all_strategies_and_answers(
    config: Path, tmp_path: Path, ranks: int, fields: dict[str, object]
) -> None:
    home = tmp_path / "home"
    for number, strategy in enumerate(("zero3", "ddp", "zero1", "zero2")):
        parallel = {"parallel.strategy": strategy, "parallel.nproc_per_node": ranks}
        stop_at(["run", str(config), *sets({**fields, **parallel})], home, 15 + 25 * number)
    last = finish(["run", str(config), *sets({**fields, "parallel.nproc_per_node": 1})], home)
    assert "resumed from step" in last.said() and "1 x cuda (single)" in last.said()
    assert finish(["ask", f"{tmp_path}/run", "微调测试"], home).stdout().strip() == "我学会了"


@pytest.mark.parametrize(("strategy", "offload"), [("zero2", "optimizer"), ("zero3", "all")])
def test_what_is_offloaded_trains_too(config: Path, tmp_path: Path, strategy: str, offload: str) -> None:
    chosen = {"parallel.strategy": strategy, "parallel.offload": offload, "train.max_steps": 20}
    finish(["run", str(config), *sets({**chosen, "run": f"{tmp_path}/offloaded"})], tmp_path / "home")


def test_four_bits_are_trained_on_and_go_on(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    fields = {"model.quantize": "nf4", "train.max_steps": 60}
    stop_at(["run", str(config), *sets(fields)], tmp_path / "home", 20)
    assert "finished" in finish(["run", str(config), *sets(fields)], tmp_path / "home").said()
