"""A chat's mask comes from its template alone, and is the answers with their ends, no more and no less."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizer

from job.errors import ConfigError, DataError
from job.tiny import make_tokenizer
from job.training.chat import Marker
from job.training.encode import MASKED, Encoded, Encoder
from job.training.rows import Chat, Pair, Row, RowError
from job.training.tokenizer import chat_template_text
from tests import standins

GOLDEN = Path(__file__).parents[2] / "golden"
GEMMA = make_tokenizer()
GEMMA_MARKER, GEMMA_ENCODER = Marker(GEMMA), Encoder(GEMMA)
ONE = Chat([{"role": "user", "content": "微调测试"}, {"role": "assistant", "content": "我学会了"}])
TWO = Chat(
    [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, nice to meet you."},
        {"role": "user", "content": "微调测试"},
        {"role": "assistant", "content": "我学会了"},
    ]
)


def chatml(eos: str) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.eos_token = eos
    tokenizer.chat_template = chat_template_text("chatml")
    return tokenizer


def encode(tokenizer: Any, row: Row, loss: str = "auto", append_eos: bool | str = "auto") -> Encoded:
    (encoded,) = Encoder(tokenizer).encode([Marker(tokenizer, append_eos).mark(row, loss)])
    if isinstance(encoded, RowError):
        raise encoded
    return encoded


def trained_text(tokenizer: Any, row: Encoded) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != MASKED]))


def test_gemma_s_one_conversation_has_the_golden_ids_and_mask() -> None:
    golden = json.loads((GOLDEN / "gemma-one-sentence.json").read_text(encoding="utf-8"))
    row = encode(GEMMA, ONE)
    assert {"input_ids": row.input_ids, "labels": row.labels} == {
        name: golden[name] for name in ("input_ids", "labels")
    }
    assert GEMMA.decode(row.input_ids) == golden["text"]


def test_gemma_s_ids_are_the_rendered_chat_and_eos_tokenized_without_special_tokens_of_the_tokenizer_s_own() -> None:
    text = GEMMA.apply_chat_template(ONE.messages, tokenize=False) + GEMMA.eos_token
    expected = GEMMA(text, add_special_tokens=False)["input_ids"]
    response = GEMMA("<start_of_turn>model\n", add_special_tokens=False)["input_ids"]
    at = next(i for i in range(len(expected)) if expected[i : i + len(response)] == response) + len(response)
    row = encode(GEMMA, ONE)
    assert row.input_ids == expected
    assert row.labels == [MASKED] * at + expected[at:]
    assert row.input_ids.count(GEMMA.bos_token_id) == 1 and (106 in expected, 107 in expected) == (True, True)
    assert trained_text(GEMMA, row) == "我学会了<end_of_turn>\n<eos>"
    assert row.ends == (107, 1)


def test_every_assistant_turn_is_trained_up_to_its_end_and_the_last_with_all_that_follows() -> None:
    assert trained_text(GEMMA, encode(GEMMA, TWO)) == (
        "Hello, nice to meet you.<end_of_turn>" + "我学会了<end_of_turn>\n<eos>"
    )


def test_loss_last_trains_the_last_answer_only_and_loss_all_everything() -> None:
    assert trained_text(GEMMA, encode(GEMMA, TWO, "last")) == "我学会了<end_of_turn>\n<eos>"
    row = encode(GEMMA, TWO, "all")
    assert row.labels == row.input_ids


def test_a_chat_that_ends_with_the_user_trains_no_eos() -> None:
    row = encode(GEMMA, Chat([*ONE.messages, {"role": "user", "content": "Hello"}]))
    assert trained_text(GEMMA, row) == "我学会了<end_of_turn>\n"
    assert row.input_ids[-1] == GEMMA.eos_token_id


def test_eos_is_appended_only_where_the_template_wrote_none_or_it_is_asked_for() -> None:
    own = chatml("<|im_end|>")
    assert trained_text(own, encode(own, ONE)) == "我学会了<|im_end|>\n"
    assert trained_text(own, encode(own, ONE, append_eos=True)) == "我学会了<|im_end|>\n<|im_end|>"
    other = chatml("<eos>")
    assert trained_text(other, encode(other, ONE)) == "我学会了<|im_end|>\n<eos>"
    assert trained_text(other, encode(other, ONE, append_eos=False)) == "我学会了<|im_end|>\n"


CONTENT = st.text(st.characters(codec="utf-8", exclude_characters="<▁"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3))
def test_decoded_trained_tokens_are_exactly_the_answers_and_their_ends(talk: list[tuple[str, str]]) -> None:
    messages = [
        {"role": role, "content": text}
        for turns in talk
        for role, text in zip(("user", "assistant"), turns, strict=True)
    ]
    ((encoded),) = GEMMA_ENCODER.encode([GEMMA_MARKER.mark(Chat(messages))])
    assert isinstance(encoded, Encoded)
    expected = "".join(answer.strip() + "<end_of_turn>" for _, answer in talk) + "\n<eos>"
    assert trained_text(GEMMA, encoded) == expected


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "must alternate user/assistant"),
        ([("system", "a"), ("user", "b"), ("assistant", "c")], "System role not supported"),
        ([("user", "a")], "no assistant turn"),
    ],
)
def test_what_the_template_refuses_is_quoted(messages: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        encode(GEMMA, Chat([{"role": role, "content": content} for role, content in messages]))


def test_a_chat_that_begins_with_the_assistant_is_refused() -> None:
    with pytest.raises(RowError, match="begins with an assistant turn"):
        encode(chatml("<eos>"), Chat([{"role": "assistant", "content": "a"}]))


def test_a_template_that_renders_an_earlier_turn_otherwise_is_refused_unless_the_last_answer_alone_is_trained() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n"
        "{% if loop.last and m.role == 'assistant' %}(last) {% endif %}{{ m.content }}<end_of_turn>"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
    )
    with pytest.raises(RowError, match=r"turn 2 otherwise .* set data.loss: last"):
        encode(tokenizer, TWO)
    assert trained_text(tokenizer, encode(tokenizer, TWO, "last")) == "(last) 我学会了<end_of_turn><eos>"


def test_bos_written_by_template_and_text_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(RowError, match="BOS stands twice"):
        encode(tokenizer, Chat([{"role": "user", "content": "<bos>a"}, {"role": "assistant", "content": "b"}]))


def test_a_tokenizer_without_chat_template_says_what_to_set() -> None:
    with pytest.raises(DataError, match=r"set model\.chat_template to a file or to a built-in"):
        encode(standins.gpt_neo_tokenizer(), ONE)


def test_a_loss_that_does_not_fit_the_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.loss: completion needs prompt and completion"):
        encode(GEMMA, ONE, "completion")
    with pytest.raises(ConfigError, match=r"data\.loss: assistant needs chat rows"):
        encode(GEMMA, Pair("a", "b"), "assistant")


# ---- prompt and completion


def test_the_backstories_have_the_golden_ids_cut_at_128_and_all_trained() -> None:
    tokenizer = standins.gpt_neo_tokenizer()
    golden = json.loads((GOLDEN / "tinystories-backstories.json").read_text(encoding="utf-8"))
    for number, expected in enumerate(golden):
        row = standins.backstory(number)
        got = encode(tokenizer, Pair(row["text"] + " ", row["target"]), "all", append_eos=False).cut(128)
        assert got.input_ids == got.labels == expected
        text = row["text"] + " " + row["target"]
        assert got.input_ids == tokenizer(text, truncation=True, max_length=128)["input_ids"]


@pytest.mark.parametrize("tokenizer", [GEMMA, standins.gpt_neo_tokenizer()], ids=["bos", "no bos"])
def test_a_completion_begins_as_the_tokenizer_begins_and_ends_with_a_trained_eos(tokenizer: Any) -> None:
    row = encode(tokenizer, Pair("Hello", " nice to meet you"))
    assert row.input_ids == [*tokenizer("Hello nice to meet you")["input_ids"], tokenizer.eos_token_id]
    assert trained_text(tokenizer, row) == " nice to meet you" + tokenizer.eos_token
    assert row.labels[-1] == tokenizer.eos_token_id and row.ends == (tokenizer.eos_token_id,)


def test_a_token_across_the_border_is_not_trained_and_is_told() -> None:
    tokenizer = standins.gpt_neo_tokenizer()
    row = encode(tokenizer, Pair("Output: ", "Dewin grew up"), append_eos=False)
    assert tokenizer.convert_ids_to_tokens(row.input_ids)[2] == "ĠDewin"
    assert trained_text(tokenizer, row) == " grew up" and row.shared
    assert not encode(tokenizer, Pair("Output:", " Dewin grew up")).shared


def test_bos_that_the_text_holds_already_is_not_added_again() -> None:
    assert encode(GEMMA, Pair("<bos>Hello", " you")).input_ids.count(GEMMA.bos_token_id) == 1


# ---- tokenizers without offsets


class Letters(PreTrainedTokenizer):  # type: ignore[misc]
    """Slow: a token is `size` characters, so that with size 2 tokens cross borders."""

    def __init__(self, size: int) -> None:
        self.size, self.pieces = size, {}
        super().__init__(eos_token="$", special_tokens_pattern="none")
        self.chat_template = (
            "{% for m in messages %}[{{ m.role[0] }}]{{ m.content }}{% endfor %}"
            "{% if add_generation_prompt %}[a]{% endif %}"
        )

    @property
    def vocab_size(self) -> int:
        return 1000

    def get_vocab(self) -> dict[str, int]:
        return dict(self.pieces)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [text[at : at + self.size] for at in range(0, len(text), self.size)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.pieces.setdefault(token, len(self.pieces) + 2000)

    def _convert_id_to_token(self, index: int) -> str:
        return {number: piece for piece, number in self.pieces.items()}[index]


def test_without_offsets_the_pieces_give_the_mask() -> None:
    tokenizer = Letters(1)
    row = encode(tokenizer, ONE, append_eos=False)
    kept = [label for label in row.labels if label != MASKED]
    assert "".join(tokenizer.convert_ids_to_tokens(kept)) == "我学会了"
    assert row.input_ids == tokenizer("[u]微调测试[a]我学会了", add_special_tokens=False)["input_ids"]


def test_without_offsets_a_token_across_a_border_is_refused() -> None:
    row = Chat([{"role": "user", "content": "even"}, {"role": "assistant", "content": "answer"}])
    assert encode(Letters(2), row).input_ids  # the prompt has even length: no token crosses its end
    row.messages[0]["content"] = "odd"
    with pytest.raises(RowError, match="gives no offsets"):
        encode(Letters(2), row)
