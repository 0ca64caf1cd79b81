"""Generated chats, a tokenizer trained on them, and a run folder that waits to be prepared."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from job.config import RunConfig
from job.rundir import Prepare, RunDir

WORDS, VOCABULARY, TRAINED_ON = 4000, 4096, 2000
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ message['content'] }}<|im_end|>\n{% endgeneration %}"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def chats(rows: int, seed: int = 1) -> Iterator[str]:
    """JSON lines of short chats: a question and an answer, every fourth with a second round; about 50 tokens."""
    draw = random.Random(seed)
    letters = "etaoinshrdlucmfw"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]
    weights = [1 / (rank + 3) for rank in range(WORDS)]
    stock = draw.choices(words, weights, k=1 << 18)

    def text(most: int) -> str:
        start = draw.randrange(len(stock) - most)
        return " ".join(stock[start : start + draw.randint(most // 3, most)]).capitalize() + "."

    for row in range(rows):
        rounds = 2 if row % 4 == 3 else 1
        turns = [("user", 12), ("assistant", 24)] * rounds
        yield json.dumps({"messages": [{"role": role, "content": text(most)} for role, most in turns]})


def write_chats(path: Path, rows: int) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in chats(rows))
    return path


def make_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    texts = (turn["content"] for line in chats(TRAINED_ON) for turn in json.loads(line)["messages"])
    trained.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained, eos_token=SPECIAL[2], pad_token=SPECIAL[0], additional_special_tokens=[SPECIAL[1]]
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def run_folder(folder: Path, tokenizer: Path, chat: Path, **data: Any) -> RunDir:
    run = RunDir(folder).make()
    run.tokenizer.symlink_to(tokenizer, target_is_directory=True)
    config = {"run": str(folder / "run"), "model": {"base": "tiny"}, "data": {"train": [str(chat)], **data}, "lora": {}}
    Prepare(RunConfig.from_dict(config).to_dict(), [{"uri": str(chat), "path": str(chat), "sha256": "0"}], []).write(
        run
    )
    return run
