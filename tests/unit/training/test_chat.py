"""A chat's mask comes from its template alone, and is the answers with their ends, no more and no less."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.errors import ConfigError, DataError
from job.tiny import make_tokenizer
from job.training.chat import Marker
from job.training.encode import MASKED, Encoded, Encoder
from job.training.rows import Chat, Instruction, Pair, Row, RowError
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


def encode(tokenizer: Any, row: Row | Instruction, loss: str = "auto", append_eos: bool | str = "auto") -> Encoded:
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
    assert trained_text(GEMMA, row) == "我学会了<end_of_turn>"
    assert row.input_ids[-1] == GEMMA.eos_token_id


def test_a_chat_that_does_not_end_with_the_assistant_is_known_by_it() -> None:
    asked = Chat([*ONE.messages, {"role": "user", "content": "Hello"}])
    assert GEMMA_MARKER.mark(asked).unanswered and not GEMMA_MARKER.mark(ONE).unanswered
    assert not GEMMA_MARKER.mark(asked, "all").unanswered


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
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "must alternate user/assistant.*; begin with the user"),
        ([("system", "a"), ("user", "b"), ("assistant", "c")], "System role not supported.*; put the system text into"),
        ([("user", "a"), ("assistant", "b"), ("tool", "c"), ("assistant", "d")], "; set a model.* that knows tools"),
        ([("user", "a")], r"no assistant turn, so nothing to learn \(roles: user\)$"),
        ([("user", "a"), ("narrator", "b")], r"no assistant turn.*narrator\); an assistant is named assistant, gpt, "),
    ],
)
def test_what_the_template_refuses_is_quoted(messages: list[tuple[str, str]], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        encode(GEMMA, Chat([{"role": role, "content": content} for role, content in messages]))


def test_a_call_without_content_is_advised_a_template_that_knows_tools() -> None:
    call = {"type": "function", "function": {"name": "weather", "arguments": {}}}
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises(RowError, match=r"no attribute 'content'.*; set a model\.chat_template that knows tools"):
        encode(chatml("<eos>"), Chat(messages))


def test_a_chat_that_begins_with_the_assistant_is_refused() -> None:
    with pytest.raises(RowError, match="begins with an assistant turn"):
        encode(chatml("<eos>"), Chat([{"role": "assistant", "content": "a"}]))


def test_an_answer_is_trained_as_the_whole_chat_shows_it() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<start_of_turn>{{ m.role }}\n"
        "{% if loop.last and m.role == 'assistant' %}(last) {% endif %}{{ m.content }}<end_of_turn>"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
    )
    first = "Hello, nice to meet you.<end_of_turn>"
    assert trained_text(tokenizer, encode(tokenizer, TWO)) == first + "(last) 我学会了<end_of_turn><eos>"


def test_bos_written_twice_is_refused() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token + bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(RowError, match="BOS stands twice"):
        encode(tokenizer, Chat([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]))


def test_a_chat_template_that_is_no_template_is_named_with_its_line() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}\n{% for m in messages %}"
    with pytest.raises(ConfigError, match=r"no Jinja template: line 2.*set model\.chat_template"):
        encode(tokenizer, ONE)


# ---- which answers


def weighed(*weights: int) -> Chat:
    """Four turns; a weight for each."""
    return Chat(TWO.messages, trained=tuple(bool(weight) for weight in weights))


@pytest.mark.parametrize("loss", ["auto", "weight", "completion"])
def test_what_the_data_say_is_trained_is_trained(loss: str) -> None:
    assert trained_text(GEMMA, encode(GEMMA, weighed(1, 1, 1, 0), loss)) == "Hello, nice to meet you.<end_of_turn>"
    assert trained_text(GEMMA, encode(GEMMA, weighed(0, 0, 0, 1), loss)) == "我学会了<end_of_turn>\n<eos>"


def test_loss_assistant_and_last_do_not_ask_the_data() -> None:
    both = "Hello, nice to meet you.<end_of_turn>" + "我学会了<end_of_turn>\n<eos>"
    assert trained_text(GEMMA, encode(GEMMA, weighed(0, 1, 0, 0), "assistant")) == both
    assert trained_text(GEMMA, encode(GEMMA, weighed(0, 1, 0, 0), "last")) == "我学会了<end_of_turn>\n<eos>"


def test_loss_weight_needs_weights_and_one_of_them_on_an_answer() -> None:
    with pytest.raises(RowError, match="no turn has a `weight`"):
        encode(GEMMA, TWO, "weight")
    with pytest.raises(RowError, match="nothing to learn"):
        encode(GEMMA, weighed(1, 0, 1, 0))


def test_an_opening_answer_that_is_not_trained_may_stand_there() -> None:
    tokenizer = chatml("<eos>")
    messages = [{"role": "assistant", "content": "Hello"}, *ONE.messages]
    row = encode(tokenizer, Chat(messages), "last")
    assert trained_text(tokenizer, row) == "我学会了<|im_end|>\n<eos>"


def test_empty_answers_are_counted() -> None:
    messages = [*TWO.messages[:3], {"role": "assistant", "content": " "}]
    assert GEMMA_MARKER.mark(Chat(messages)).empty == 1
    assert GEMMA_MARKER.mark(TWO).empty == 0
    assert GEMMA_MARKER.mark(Pair("a", "")).empty == 1


def test_an_instruction_is_a_chat_where_there_is_a_template_and_else_a_pair() -> None:
    row = Instruction(ONE, Pair("微调测试", "我学会了"))
    assert GEMMA_MARKER.mark(row).text == GEMMA_MARKER.mark(ONE).text
    assert Marker(standins.gpt_neo_tokenizer()).mark(row).text == "微调测试我学会了"


def test_a_tokenizer_without_chat_template_says_what_to_set() -> None:
    with pytest.raises(DataError, match=r"set model\.chat_template to a file or to a built-in"):
        encode(standins.gpt_neo_tokenizer(), ONE)


def test_a_loss_that_does_not_fit_the_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.loss: completion needs prompt and completion"):
        encode(GEMMA, ONE, "completion")
    with pytest.raises(ConfigError, match=r"data\.loss: assistant needs chat rows"):
        encode(GEMMA, Pair("a", "b"), "assistant")
