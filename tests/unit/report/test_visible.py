"""Nothing in a row stays unseen, and nothing in it moves or commands what stands around it."""

from typing import Any

import pytest

from job.report.histogram import bar, percent
from job.report.visible import alone, folded, stretches, visible


def piece(text: str, trained: bool = False, kind: str = "text") -> Any:
    return {"first": 0, "ids": [7], "labels": [7 if trained else -100], "text": text, "kind": kind, "trained": trained}


def shown(*pieces: Any) -> str:
    return "".join(span.text for stretch in stretches(pieces) for span in stretch.spans)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a b", "a b"),
        (" a ", "␣a␣"),
        ("a  b", "a␣␣b"),
        ("a \n b", "a␣↵\n␣b"),
        ("a\tb\r\n", "a⇥b␍↵\n"),
        ("\x1b[31mred\x07\x7f\x85", "␛[31mred␇␡⟨U+0085⟩"),
        ("a\u202eb\u200bc\u00a0d\ufeff", "a⟨U+202E⟩b⟨U+200B⟩c⟨U+00A0⟩d⟨U+FEFF⟩"),
        ("👩‍👧 می‌خواهم", "👩‍👧 می‌خواهم"),
        ("微调测试。", "微调测试。"),
        ("", "∅"),
    ],
)
def test_what_does_not_show_is_written_as_what_does(text: str, seen: str) -> None:
    assert shown(piece(text)) == seen


def test_a_space_is_seen_where_a_mask_or_a_special_token_begins() -> None:
    assert shown(piece("answer: "), piece("yes", True)) == "answer:␣yes"
    assert shown(piece("<eos>", kind="special"), piece(" a b")) == "<eos>␣a b"
    assert shown(piece("one"), piece(" two"), piece(" three")) == "one two three"


def test_a_stretch_has_one_mask_and_one_line() -> None:
    found = list(stretches([piece("a\nb"), piece("c", True), piece("<eos>", True, "special")]))
    texts = ["".join(span.text for span in stretch.spans) for stretch in found]
    assert texts == ["a↵\n", "b", "c", "<eos>"]
    assert [(stretch.trained, stretch.special) for stretch in found] == [
        (False, False), (False, False), (True, False), (True, True),
    ]  # fmt: skip


def test_every_second_token_has_its_shade_but_what_is_written_as_one_keeps_it() -> None:
    def shades(*texts: str) -> list[bool]:
        return [span.odd for stretch in stretches([piece(text) for text in texts]) for span in stretch.spans]

    assert shades("a", "b", "c") == [False, True, False]
    assert shades("e", "\u0301", "x") == [False, False, True]
    assert shades("👍", "🏽", "x") == [False, False, True]
    assert shades("ق", "ص", " x") == [False, False, True]


def test_only_stretches_with_right_to_left_text_are_marked_as_such() -> None:
    assert [stretch.right_to_left for stretch in stretches([piece("a\nأ b\n1")])] == [False, True, False]


def test_the_middle_of_a_long_stretch_is_left_out_and_counted() -> None:
    pieces = [piece("a") for _ in range(50)] + [piece("b", True) for _ in range(3)]
    first, left_out, last = folded(pieces, 10, 5)
    assert isinstance(first, list) and isinstance(last, list)
    assert (len(first), left_out, len(last)) == (10, 35, 8)
    assert list(folded(pieces, 40, 10)) == [pieces]


@pytest.mark.parametrize(
    ("text", "seen"),
    [(" a", "␣a"), ("  ", "␣␣"), ("a b", "a b"), ("\n", "↵"), ("\u0301", "◌\u0301"), ("\u200d", "⟨U+200D⟩"), ("", "∅")],
)
def test_a_token_by_itself_shows_where_it_begins_and_ends(text: str, seen: str) -> None:
    assert alone(text) == seen


def test_one_line_stays_one_line() -> None:
    assert visible("a\r\nb\x0b\u2028c") == "a␍↵b␋⟨U+2028⟩c"


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0%"), (1.0, "100%"), (0.9999999, "99.99%"), (0.0000001, "0.01%"), (0.004, "0.40%"), (0.374, "37%")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float, said: str) -> None:
    assert percent(share) == said


def test_bars_are_as_long_as_their_share_and_never_nothing() -> None:
    assert bar(1.0, 10) == "█" * 10
    assert bar(0.5, 3) == "█▌"
    assert bar(1e-9, 10) == "▏" and bar(0.0, 10) == ""
