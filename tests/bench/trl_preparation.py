"""SFTTrainer's own preparation of chats, timed: `python -m tests.bench.trl_preparation TOKENIZER CHAT PROCESSES OUT`.

Prints the seconds that its `_prepare_dataset` took: rendering, tokens, masks and truncation; the reading of the file,
the imports and the model are not counted.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from datasets import load_dataset
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


class Timed(SFTTrainer):
    seconds = cpu_seconds = 0.0
    rows = 0

    def _prepare_dataset(self, *arguments: Any, **named: Any) -> Any:
        began, used = time.monotonic(), sum(os.times()[:4])  # with the processes it starts and waits for
        made = super()._prepare_dataset(*arguments, **named)
        Timed.seconds, Timed.rows = time.monotonic() - began, len(made)
        Timed.cpu_seconds = sum(os.times()[:4]) - used
        return made


def main(tokenizer_folder: str, chat: str, processes: str, out: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows = load_dataset("json", data_files=chat, split="train", cache_dir=str(Path(out) / "cache"))
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    config = SFTConfig(
        output_dir=out, assistant_only_loss=True, max_length=1024, dataset_num_proc=int(processes), use_cpu=True,
        bf16=False, report_to=[],
    )  # fmt: skip
    trainer = Timed(LlamaForCausalLM(shape), args=config, train_dataset=rows, processing_class=tokenizer)
    labels = trainer.train_dataset[0]["labels"]
    assert 0 < labels.count(-100) < len(labels), "the masks were not made"
    print(json.dumps({"seconds": Timed.seconds, "cpu_seconds": Timed.cpu_seconds, "rows": Timed.rows}))


if __name__ == "__main__":
    main(*sys.argv[1:])
