"""The ids are those of the whole text, and a prompt keeps the tokens it has by itself."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.training.chat import Marked
from job.training.tokens import Tokenization, Tokens
from tests import families

PIECES = st.lists(
    st.sampled_from(["the answer", "\n", "\n\n", " ", "<|im_end|>", "<|im_start|>", "é", "微", " yes. no"]), max_size=6
).map("".join)


def tokenize(tokenizer: Any, row: Marked) -> Tokens:
    (tokens,) = Tokenization(tokenizer).tokenize([row])
    assert isinstance(tokens, Tokens)
    return tokens


def test_a_token_across_the_beginning_of_an_answer_is_split_as_the_prompt_by_itself_is() -> None:
    tokenizer = families.tokenizer("qwen25")
    asked, answer = "<|im_start|>assistant\n", "\n\nthe answer<|im_end|>"
    row = Marked(asked + answer, ((len(asked), len(asked + answer)),), chat=True)
    prompt = tokenizer(asked)["input_ids"]
    assert tokenizer(row.text)["input_ids"][: len(prompt)] != prompt
    tokens = tokenize(tokenizer, row)
    assert tokens.ids[: len(prompt)] == prompt and tokens.spans == [(len(prompt), len(tokens.ids))]
    assert not tokens.shared
    assert tokenizer.decode(tokens.ids[len(prompt) :]) == answer


@pytest.mark.parametrize("family", ["qwen25", "phi4"])
@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES, min_size=2, max_size=5))
def test_borders_are_where_the_characters_are(family: str, pieces: list[str]) -> None:
    tokenizer = families.tokenizer(family)
    text = "".join(pieces)
    borders = [len("".join(pieces[:count])) for count in range(len(pieces) + 1)]
    spans = tuple((start, end) for start, end in zip(borders[1::2], borders[2::2], strict=False) if end > start)
    if not spans:
        return
    tokens = tokenize(tokenizer, Marked(text, spans, chat=True))
    assert tokenizer.decode(tokens.ids) == text
    for (start, end), (first, last) in zip(spans, tokens.spans, strict=True):
        if not tokens.shared:
            found = tokenizer.decode(tokens.ids[first:last])
            assert found.startswith(text[start:end])  # a token across the end of a span belongs to it


def test_many_rows_at_once_are_each_as_alone() -> None:
    tokenizer = families.tokenizer("mistral1")
    rows = [
        Marked("<s>[INST] the answer [/INST]yes</s> ", ((28, 36),), chat=True),
        Marked("the answer", ((0, 10),), chat=False),
        Marked("</s>", ((0, 4),), chat=True),
        Marked("", ((0, 0),), chat=False),
    ]
    together = Tokenization(tokenizer).tokenize(rows)
    assert together == [tokenize(tokenizer, row) for row in rows]
