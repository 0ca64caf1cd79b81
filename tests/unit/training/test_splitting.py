"""A row that is split trains what it would have trained whole: each token once, and each answer with its question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job import tiny
from job.training.encode import MASKED, Encoded
from job.training.splitting import Silence, Split, silence_of, split

BOS = 1
BLANK, SPECIAL = set(range(1000, 1100)), set(range(2000, 2100))
SILENT = BLANK | SPECIAL
SILENCE = Silence(BLANK.__contains__, SPECIAL | {BOS})


@st.composite
def rows(draw: st.DrawFn) -> Encoded:
    """Each token once, so that its place is known; stretches as long as answers and questions are."""
    masks = [draw(st.booleans())]
    for _ in range(draw(st.integers(0, 6))):
        masks += [not masks[-1]] * draw(st.integers(1, 15))
    kinds = draw(st.lists(st.sampled_from([10, 10, 10, 1000, 2000]), min_size=len(masks), max_size=len(masks)))
    ids = [kind + at if kind != 10 else 10 + at for at, kind in enumerate(kinds)]
    if draw(st.booleans()):
        ids = [BOS, *ids]
        masks = [draw(st.booleans()) and masks[0], *masks]
    return Encoded(ids, [token if mask else MASKED for token, mask in zip(ids, masks, strict=True)], ())


def targets(row: Encoded) -> list[int]:
    return [label for label in row.labels[1:] if label != MASKED]


def answers(row: Encoded) -> list[list[int]]:
    found: list[list[int]] = []
    for at, label in enumerate(row.labels):
        if label != MASKED:
            if not at or row.labels[at - 1] == MASKED:
                found.append([])
            found[-1].append(label)
    return found


@given(rows(), st.integers(2, 24))
def test_each_target_is_a_target_once_unless_it_is_counted_as_lost(row: Encoded, most: int) -> None:
    made = split(row, most, BOS, SILENCE)
    found = [label for part in made.parts for label in targets(part)]
    missing = [label for label in targets(row) if label not in found]
    assert found == [label for label in targets(row) if label in found] and len(found) == len(set(found))
    assert len(missing) == made.lost and set(missing) <= SILENT


@given(rows(), st.integers(2, 24))
def test_each_part_is_a_stretch_of_the_row_with_something_to_say(row: Encoded, most: int) -> None:
    for part in split(row, most, BOS, SILENCE).parts:
        assert 2 <= len(part.input_ids) <= most and part.trained
        inner = part.input_ids[1:] if part.input_ids[0] == BOS else part.input_ids
        start = row.input_ids.index(inner[0])
        assert row.input_ids[start : start + len(inner)] == inner
        assert all(label in (MASKED, token) for token, label in zip(part.input_ids, part.labels, strict=True))
        assert (part.input_ids[0] == BOS) == (row.input_ids[0] == BOS)
        assert not set(targets(part)) <= SILENT or set(targets(row)) <= SILENT


@given(rows(), st.integers(2, 24))
def test_an_answer_that_fits_stays_whole_with_what_fits_ahead_of_it(row: Encoded, most: int) -> None:
    made = split(row, most, BOS, SILENCE)
    for answer in answers(row):
        at = row.input_ids.index(answer[0])
        if not at or len(answer) + 1 > most or set(answer) <= SILENT:
            continue
        (part,) = [part for part in made.parts if set(answer) & set(targets(part))]
        assert set(answer) <= set(targets(part))
        ahead = part.input_ids.index(answer[0])
        room = most - len(answer)
        alone = targets(part)[0] == answer[0]
        begins = row.input_ids.index(part.input_ids[1 if part.input_ids[0] == BOS else 0])
        opens = begins <= 1 or row.labels[begins - 1] != MASKED or row.input_ids[begins - 1] in BLANK
        assert not alone or opens or ahead == room  # a question is cut only where there is no room for more


@given(rows(), st.integers(2, 24))
def test_parts_that_begin_in_an_answer_are_counted(row: Encoded, most: int) -> None:
    made = split(row, most, BOS, SILENCE)
    begun = {answer[0] for answer in answers(row)} | set(targets(row)[:1])
    inside = [part for part in made.parts if targets(part)[0] not in begun and part.labels[1] != MASKED]
    silent_start = any(set(answer[:most]) & SILENT for answer in answers(row))  # a dropped part has no beginning
    if row.trained < len(row.labels) - 1 and not silent_start:
        assert made.inside == len(inside)
    if row.trained == len(row.labels) - 1:
        assert made.inside == 0


def encoded(text: str) -> Encoded:
    """A token for each letter: capitals are trained, `_` is white space (`=` trained), Z ends a turn, ^ is BOS."""
    ids = [ord(letter.lower().replace("=", "_")) for letter in text]
    labels = [token if letter.isupper() or letter == "=" else MASKED for token, letter in zip(ids, text, strict=True)]
    return Encoded(ids, labels, (ord("z"),))


def spelled(part: Encoded) -> str:
    letters = zip(part.input_ids, part.labels, strict=True)
    return "".join(chr(token).upper().replace("_", "=") if label != MASKED else chr(token) for token, label in letters)


def cut(text: str, most: int) -> Split:
    return split(encoded(text), most, ord("^"), Silence(lambda token: token == ord("_"), {ord("z"), ord("^")}))


@pytest.mark.parametrize(
    "text, most, parts",
    [
        ("qAZqBZqCZ", 6, ["qAZqBZ", "qCZ"]),  # behind an answer
        ("qAZqBZqCZ", 8, ["qAZqBZ", "qCZ"]),
        ("qAZ_qBZ_qCZ", 7, ["qAZ_qBZ", "qCZ"]),  # at the turn's opening, not at the white space before it
        ("^qAZ_qBZ_qCZ", 4, ["^qAZ", "^qBZ", "^qCZ"]),
        ("^qrstuvwABZ", 7, ["^uvwABZ"]),  # the question gives way to the answer
        ("qrstuvwABZ", 6, ["uvwABZ"]),
        ("^qABZ", 4, ["^ABZ"]),
        ("^qAZ^qBZ", 4, ["^qAZ", "^qBZ"]),  # a template that writes BOS before each turn
        ("^qrstABCDEFZ", 6, ["^rstAB", "^CDEFZ"]),  # three quarters for the question of a long answer
        ("qABCDEZ", 4, ["qABC", "cDEZ"]),
        ("qABCDEZqFZ", 7, ["qABCDEZ", "qFZ"]),
        ("^qABCDZ==Z", 7, ["^qAB", "^CDZ==Z"]),  # what ends the answer is not left alone
        ("ABCDEZ", 5, ["AB", "bCDEZ"]),
        ("ABCDEFG", 3, ["ABC", "cDE", "eFG"]),  # windows of plain text
        ("qqqqqqAZ", 4, ["qqAZ"]),
        ("AZqq", 2, ["AZ"]),
        ("qZ", 2, ["qZ"]),  # an answer may be a special token
    ],
)  # fmt: skip
def test_where_rows_are_cut(text: str, most: int, parts: list[str]) -> None:
    assert [spelled(part) for part in cut(text, most).parts] == parts


def test_what_became_of_the_rows_is_counted() -> None:
    assert cut("^qrstABCDEFZ", 6) == Split(cut("^qrstABCDEFZ", 6).parts, inside=1, unopened=1)
    assert cut("qABCDEZqFZ", 3).inside == 2
    assert (cut("^qrAZ", 4).unopened, cut("^qAZ^qBZ", 4).unopened) == (1, 0)
    assert cut("^qAB====", 4).lost == 4
    assert (cut("^qrABCDEZ", 4).unopened, cut("^qrsABCDEZ", 4).unopened) == (0, 1)
    assert (cut("ABCDEFG", 3).inside, cut("^ABCDEFG", 3).inside) == (0, 0)  # plain text


def test_a_part_knows_whether_it_holds_an_end() -> None:
    assert [part.ends for part in cut("qABCDEZ", 4).parts] == [(), (ord("z"),)]


def test_no_row_is_short_enough_to_train_nothing() -> None:
    assert cut("qAZ", 1) == Split([], lost=2)


def test_the_silence_of_a_tokenizer_is_its_special_tokens_and_white_space() -> None:
    tokenizer = tiny.make_tokenizer()
    silence = silence_of(tokenizer)
    ids = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("<end_of_turn>", "\n", "yes")}
    assert all(silence.holds(token) for text in ("<end_of_turn>", "\n") for token in ids[text])
    assert not any(silence.holds(token) for token in ids["yes"])
    assert silence.blank(ids["\n"][0]) and not silence.blank(ids["<end_of_turn>"][0])
