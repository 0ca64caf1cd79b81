"""Any chat on any family's template: what is trained is the answers with their ends, no more and no less."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.training.chat import Marker
from job.training.encode import MASKED, Encoded, Encoder
from job.training.reserved import added_tokens
from job.training.rows import Chat, RowError
from tests import families

FAMILIES = pytest.mark.parametrize("family", families.FAMILIES, ids=lambda family: family.name)
MARKUP = ("[/INST]", "[INST]", "Assistant:", "User: ", "ASSISTANT: ", "<|im_", "|>", "</s", "<end_of", "{{ messages }}",
          "{% generation %}", "assistant\n", "<|im_start|", "<bos", "model\n", "\ufdd0", "﷐1﷑")  # fmt: skip
EDGES = st.sampled_from(("", "", "\n", " ", "\n\n", "\t", "\u2003", " \n "))
TEXT = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=12), st.sampled_from(MARKUP))
CONTENT = st.builds("{}{}{}{}".format, EDGES, TEXT, TEXT, EDGES)


def marked(family: families.Family, messages: list[dict[str, Any]], loss: str = "auto", **chat: Any) -> Encoded:
    tokenizer = families.tokenizer(family.name)
    (encoded,) = Encoder(tokenizer).encode([Marker(tokenizer).mark(Chat(messages, **chat), loss)])
    if isinstance(encoded, RowError):
        raise encoded
    return encoded


def trained(family: families.Family, row: Encoded) -> str:
    return str(families.tokenizer(family.name).decode([label for label in row.labels if label != MASKED]))


def talk(*texts: str, system: str | None = None) -> list[dict[str, Any]]:
    said = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return said if system is None else [{"role": "system", "content": system}, *said]


@FAMILIES
def test_a_single_turn_trains_the_answer_and_its_end(family: families.Family) -> None:
    assert trained(family, marked(family, talk("Is it?", "It is."))) == family.expected(["It is."])


@FAMILIES
def test_several_turns_train_each_answer_and_its_end(family: families.Family) -> None:
    row = marked(family, talk("Is it?", "It is.", "Really?", "No.", "So?", "微调测试"))
    assert trained(family, row) == family.expected(["It is.", "No.", "微调测试"])
    assert row.ends


@FAMILIES
def test_the_ids_are_those_of_the_rendered_chat(family: families.Family) -> None:
    tokenizer = families.tokenizer(family.name)
    messages = talk("Is it?", "It is.", "Really?", "No.")
    whole = Marker(tokenizer).mark(Chat(messages)).text
    assert marked(family, messages).input_ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
    if family.name != "llama32":  # which asks for the day
        assert whole.startswith(tokenizer.apply_chat_template(messages, tokenize=False))


@FAMILIES
def test_a_chat_that_ends_with_the_user_trains_the_answers_before(family: families.Family) -> None:
    row = marked(family, talk("Is it?", "It is.", "Really?"))
    assert trained(family, row) == family.lead + "It is." + family.end


@pytest.mark.parametrize("family", [family for family in families.FAMILIES if family.system], ids=lambda f: f.name)
def test_a_system_prompt_is_never_trained(family: families.Family) -> None:
    row = marked(family, talk("Is it?", "It is.", "Really?", "No.", system="Be short."))
    assert trained(family, row) == family.expected(["It is.", "No."])
    assert "Be short." in families.tokenizer(family.name).decode(row.input_ids)


@FAMILIES
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_chat_trains_exactly_the_answers_and_their_ends(family: families.Family, data: st.DataObject) -> None:
    texts = data.draw(st.lists(st.tuples(CONTENT, CONTENT), min_size=1, max_size=3))
    system = data.draw(st.none() | CONTENT) if family.system else None
    messages = talk(*(text for pair in texts for text in pair), system=system)
    try:
        row = marked(family, messages)
    except RowError as refused:
        spelled = [*added_tokens(families.tokenizer(family.name)), *family.marks]
        assert any(token in message["content"] for message in messages for token in spelled), refused
        return
    assert trained(family, row) == family.expected([answer for _, answer in texts])
