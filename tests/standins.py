"""Tiny models of the tutorials' architectures, made on the spot, and rows in the shape of their data."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from job import tiny

QUESTION, ANSWER = tiny.QUESTION, tiny.ANSWER
END_OF_TEXT = "<|endoftext|>"
MAX_POSITIONS = 2048
NAMES, RACES, CLASSES = ("Dewin", "Mira", "Toldor"), ("Halfling", "Elf", "Dwarf"), ("Sorcerer bard", "Ranger", "Cleric")


def gemma(folder: Path) -> Path:
    """Gemma's architecture, special ids and chat template; base and tokenizer in one folder."""
    return tiny.make(folder)


def write_conversation(path: Path, shape: str = "messages") -> Path:
    """The one conversation; `shape` is messages (role/content) or conversation (human, role/message)."""
    messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
    conversation = [{"role": "human", "message": QUESTION}, {"role": "assistant", "message": ANSWER}]
    shapes: dict[str, dict[str, Any]] = {
        "messages": {"messages": messages},
        "conversation": {"conversation": conversation, "category": None, "data_source": "weibo"},
    }
    return write_rows(path, [shapes[shape]])


def backstory(number: int) -> dict[str, str]:
    """One row with the columns text and target; every third story is far longer than 128 tokens."""
    name, race, kind = NAMES[number % 3], RACES[number // 3 % 3], CLASSES[number // 9 % 3]
    text = (
        "Generate Backstory based on following information\n"
        f"Character Name: {name} \nCharacter Race: {race}\nCharacter Class: {kind}\n\nOutput:\n"
    )
    sentence = f"{name} grew up in house number {number} among other {race} children, and wished to be a {kind}. "
    return {"text": text, "target": (sentence * (12 if number % 3 == 2 else 1)).strip()}


def write_backstories(path: Path, rows: int = 30) -> Path:
    return write_rows(path, [backstory(number) for number in range(rows)])


def write_rows(path: Path, rows: Sequence[Any]) -> Path:
    """Any rows, as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def gpt_neo_tokenizer() -> Any:
    """Byte-level BPE whose only special token is <|endoftext|>: no pad token, no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Tokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trained.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), show_progress=False)
    trained.train_from_iterator([" ".join(backstory(number).values()) for number in range(27)], trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary[END_OF_TEXT] = len(vocabulary)
    return GPT2Tokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in model["merges"]],
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=MAX_POSITIONS,
    )


def gpt_neo(folder: Path, seed: int = 7) -> Path:
    """GPT-Neo with a global and a local attention layer, as TinyStories-33M has; base and tokenizer in one folder."""
    import torch
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    tokenizer = gpt_neo_tokenizer()
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=64,
        max_position_embeddings=MAX_POSITIONS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPTNeoForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
