"""A row that is split trains what it would have trained whole: each token once, and none of another row's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.training.encode import MASKED, Encoded
from job.training.splitting import parts_of

BOS = 1


@st.composite
def rows(draw: st.DrawFn) -> Encoded:
    masks = draw(st.lists(st.booleans(), min_size=2, max_size=60))
    begins = draw(st.booleans())
    ids = [BOS if begins and not at else 10 + at for at in range(len(masks))]  # each token once
    return Encoded(ids, [token if mask else MASKED for token, mask in zip(ids, masks, strict=True)], ())


@given(rows(), st.integers(2, 20), st.booleans())
def test_each_target_is_a_target_of_exactly_one_part_and_keeps_its_place(row: Encoded, most: int, chat: bool) -> None:
    parts = parts_of(row, most, chat, BOS)
    targets = [label for part in parts for label in part.labels[1:] if label != MASKED]
    assert targets == [label for label in row.labels[1:] if label != MASKED]
    for part in parts:
        assert 2 <= len(part.input_ids) <= most and part.trained
        inner = part.input_ids[1:] if part.input_ids[0] == BOS else part.input_ids
        start = row.input_ids.index(inner[0])
        assert row.input_ids[start : start + len(inner)] == inner
        assert all(label in (MASKED, token) for token, label in zip(part.input_ids, part.labels, strict=True))


@given(rows(), st.integers(2, 20))
def test_every_part_begins_with_bos_where_the_row_does(row: Encoded, most: int) -> None:
    starts = {part.input_ids[0] == BOS for part in parts_of(row, most, True, BOS)}
    assert starts <= {row.input_ids[0] == BOS}


def encoded(text: str) -> Encoded:
    """A token for each letter: capitals are trained."""
    ids = [ord(letter.lower()) for letter in text]
    return Encoded(ids, [ord(letter.lower()) if letter.isupper() else MASKED for letter in text], (ord("z"),))


def spelled(part: Encoded) -> str:
    letters = zip(part.input_ids, part.labels, strict=True)
    return "".join(chr(token).upper() if label != MASKED else chr(token) for token, label in letters)


@pytest.mark.parametrize(
    "text, most, chat, parts",
    [
        ("qAZqBZqCZ", 6, True, ["qAZqBZ", "qCZ"]),  # behind an answer
        ("qAZqBZqCZ", 7, True, ["qAZqBZ", "qCZ"]),
        ("qAZqBZqCZ", 7, False, ["qAZqBZq", "qCZ"]),  # the token that the next is predicted from stands there again
        ("qABCDEZ", 4, True, ["qABC", "cDEZ"]),  # no answer ends in time
        ("qqqqqqAZ", 4, True, ["qqAZ"]),  # nothing is trained in the first part
        ("AZqq", 2, True, ["AZ"]),
    ],
)
def test_where_rows_are_cut(text: str, most: int, chat: bool, parts: list[str]) -> None:
    assert [spelled(part) for part in parts_of(encoded(text), most, chat, None)] == parts


def test_a_part_knows_whether_it_holds_an_end() -> None:
    assert [part.ends for part in parts_of(encoded("qABCDEZ"), 4, True, None)] == [(), (ord("z"),)]


def test_no_row_is_short_enough_to_train_nothing() -> None:
    assert parts_of(encoded("qAZ"), 1, True, None) == []
