"""The tiny model is what transformers takes for a Gemma, and is made without torch, always the same."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import tiny

ROOT = Path(__file__).parents[2]
TOKENIZER = tiny.make_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make(tmp_path_factory.mktemp("tiny") / "model")


def test_transformers_loads_it_as_gemma_with_every_weight(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "GemmaForCausalLM"
    assert not any(info.values())
    assert model.num_parameters() < 150_000
    assert model.generation_config.eos_token_id == 1
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, 2)
    assert tokenizer.convert_tokens_to_ids(["<start_of_turn>", "<end_of_turn>"]) == [106, 107]
    assert len(tokenizer) == model.config.vocab_size == len(TOKENIZER)
    assert tokenizer("Hello")["input_ids"] == TOKENIZER("Hello")["input_ids"]
    assert tokenizer("Hello")["input_ids"][0] == 2


@given(st.text(st.characters(codec="utf-8", exclude_characters="▁<")))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids) == text and TOKENIZER.unk_token_id not in ids


def test_the_program_makes_the_same_without_torch(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "job.tiny", str(tmp_path / "again")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert "torch" not in {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    made = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert made == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} <= made.keys()


def test_the_demo_chat_is_bilingual_and_asks_the_one_question_often(tmp_path: Path) -> None:
    rows: list[Any] = [
        json.loads(line) for line in tiny.write_demo_chat(tmp_path / "chat.jsonl").open(encoding="utf-8")
    ]
    talks = [tuple(message["content"] for message in row["messages"]) for row in rows]
    assert len(talks) == 64 and talks.count((tiny.QUESTION, tiny.ANSWER)) == 16
    assert ("Hello", "Hello, nice to meet you.") in talks
