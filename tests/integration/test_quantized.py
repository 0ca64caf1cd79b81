"""QLoRA: an adapter on a base in four bits. What is trained stays fp32, and a stop costs no bit."""

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from job.errors import ExitCode
from job.storage.checkpoints import commit_keys, read_commit
from job.tiny import make_tokenizer, write_demo_chat
from tests.tiny_runs import TinyRuns, assert_same

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.slow

WIDE = 128  # four-bit kernels of the CPU want whole blocks


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    import torch
    from transformers import AutoModelForCausalLM, GemmaConfig

    root = tmp_path_factory.mktemp("quantized")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(root / "base")
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id", "bos_token_id")}
    shape = {"hidden_size": WIDE, "intermediate_size": 2 * WIDE, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GemmaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=WIDE // 2, **shape, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "base")
    write_demo_chat(root / "chat.jsonl")
    made = TinyRuns(str(root), root / "home", {})
    made.write_config("{r: 4, dropout: 0.1}")
    return made


QUANTIZED = {"model__quantize": "nf4", "train__max_steps": 12, "checkpoint__every": "3 steps"}


def test_it_is_stopped_and_goes_on_to_the_same_bits_and_only_the_adapter_is_trained(
    place: TinyRuns, tmp_path: Path
) -> None:
    place.finish("whole", **QUANTIZED)
    stopped = place.job("stopped", **QUANTIZED)
    stopped.wait_for_commit(3)
    stopped.signal(signal.SIGTERM)
    assert stopped.ended() in (ExitCode.DONE, ExitCode.STOPPED)
    place.finish("stopped", **QUANTIZED)
    assert_same(place, "whole", "stopped", tmp_path)
    store = place.store("whole")
    commit = read_commit(store, commit_keys(store)[0])
    trained = load_file(Path(place.root) / "runs/whole" / commit.folder / "trainable.safetensors")
    assert trained and all("lora_" in name and str(tensor.dtype) == "torch.float32" for name, tensor in trained.items())
