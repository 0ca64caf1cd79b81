"""Text that is no chat, and tokenizers without offsets: what is trained and how it ends."""

import json
from typing import Any

import pytest
from transformers import PreTrainedTokenizer

from job.errors import ConfigError
from job.tiny import make_tokenizer
from job.training.encode import MASKED
from job.training.rows import Chat, Pair, RowError, Text
from tests import standins
from tests.unit.training.test_chat import GEMMA, GOLDEN, ONE, encode, trained_text

# ---- plain text


def test_of_plain_text_everything_is_trained_and_an_end_is_put_behind_it() -> None:
    row = encode(GEMMA, Text("Hello you"))
    assert row.labels == row.input_ids == [*GEMMA("Hello you")["input_ids"], GEMMA.eos_token_id]
    assert encode(GEMMA, Text("Hello you<eos>")).input_ids == row.input_ids
    assert encode(GEMMA, Text("Hello you"), append_eos=False).input_ids == row.input_ids[:-1]
    with pytest.raises(ConfigError, match="of plain text everything is trained"):
        encode(GEMMA, Text("a"), "assistant")


def test_a_tokenizer_that_pads_with_eos_still_trains_eos() -> None:
    tokenizer = standins.gpt_neo_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    assert encode(tokenizer, Pair("Hello", " you")).labels[-1] == tokenizer.eos_token_id


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


@pytest.mark.parametrize("row", [Pair("a", "<bos>x<eos>"), Pair("<bos>a<bos>", "x"), Text("a <bos> b")])
def test_bos_in_the_middle_of_a_text_is_refused_with_its_place(row: Pair | Text) -> None:
    with pytest.raises(RowError, match=r"BOS stands in the middle of it \(token \d of \d+, behind '.*a.*take <bos>"):
        encode(GEMMA, row)


def test_bos_in_the_middle_is_let_be_where_it_ends_or_separates_texts_too() -> None:
    tokenizer = make_tokenizer()
    tokenizer.sep_token = tokenizer.bos_token
    assert encode(tokenizer, Text("a<bos>b")).input_ids.count(tokenizer.bos_token_id) == 2
    tokenizer = make_tokenizer()
    tokenizer.bos_token = tokenizer.eos_token
    assert encode(tokenizer, Text("a<eos>b")).input_ids.count(tokenizer.eos_token_id) > 1


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
