"""The main job on a real GPU in bf16: train, stop, resume, ask. `pytest tests/gpu` where there is one."""

import re
import signal
from pathlib import Path

import pytest

from job.errors import ExitCode
from job.host.devices import visible_gpus
from job.tiny import make, write_demo_chat
from tests.harness import Job, finish, sets

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(visible_gpus() == 0, reason="no CUDA device: there is no /dev/nvidia*"),
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
lora: {{r: 8, alpha: 16, dropout: 0.1}}
train: {{max_steps: 200, global_batch_size: 8, learning_rate: 1e-2, logging_steps: 1, eval_steps: 50}}
checkpoint: {{every: 20 steps}}
parallel: {{device: cuda, nproc_per_node: 1}}
""",
        encoding="utf-8",
    )
    return path


def losses(job: Job) -> dict[int, float]:
    return {int(step): float(loss) for step, loss in re.findall(r"step (\d+)/\d+  loss ([\d.]+)", job.said())}


@pytest.mark.parametrize(
    "fields",
    [{}, {"train.optim": "adamw_8bit"}, {"lora": None, "train.learning_rate": 1e-3}],
    ids=["lora", "lora-8bit-adamw", "full"],
)
def test_a_bf16_run_is_stopped_resumed_to_the_same_losses_and_answers(
    config: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    alone = finish(["run", str(config), *sets({**fields, "run": f"{tmp_path}/alone"})], tmp_path / "home")
    assert "computing in bfloat16 on 1 x cuda" in alone.said()

    stopped = Job(["run", str(config), *sets(fields)], tmp_path / "home")
    stopped.wait_for_step(30)
    stopped.signal(signal.SIGTERM)
    assert stopped.ended() == ExitCode.STOPPED

    resumed = finish(["run", str(config), *sets(fields)], tmp_path / "home")
    assert "resumed from step" in resumed.said()
    whole, second = losses(alone), losses(resumed)
    assert second and {step: whole[step] for step in second} == pytest.approx(second, rel=0.05, abs=0.02)
    answer = finish(["ask", f"{tmp_path}/run", "微调测试", "--device", "cuda"], tmp_path / "home")
    assert answer.stdout().strip() == "我学会了"


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention", "flash_attention_2"])
def test_documents_are_kept_apart_on_every_attention_implementation_of_the_gpu(
    tmp_path: Path, implementation: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from job.training.model import keeps_documents_apart

    if implementation.startswith("flash"):
        pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    make(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation=implementation, dtype=torch.bfloat16
    ).cuda()
    assert keeps_documents_apart(model, torch.device("cuda"))
