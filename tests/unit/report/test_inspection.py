"""The golden pages of a fixed data set; and that on a page, as on a terminal, no row does harm."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from job.inspection import Inspection
from job.report.facts import facts
from tests.inspecting import CHATS, GOLDEN_PAGE, GOLDEN_TEXT, examined, page_of, text_of


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Inspection:
    return examined(tmp_path_factory.mktemp("inspection"))


def changed(found: Inspection, **figures: Any) -> dict[str, tuple[str, bool]]:
    """The facts, with other figures in the summary: name -> (value, worth a second look)."""
    other: Any = {**found, "summary": {**found["summary"], **figures}}
    return {fact.name: (fact.value, fact.odd) for fact in facts(other) if fact.name}


# ---- golden


def test_the_text_is_the_golden_one(found: Inspection) -> None:
    assert text_of(found, ids=True) == GOLDEN_TEXT.read_text(encoding="utf-8")


def test_the_page_is_the_golden_one(found: Inspection) -> None:
    assert page_of(found) == GOLDEN_PAGE.read_text(encoding="utf-8")


# ---- the terminal


def test_with_colours_the_trained_tokens_are_green_and_nothing_else_in_the_row_is(found: Inspection) -> None:
    text = text_of(found, colour=True)
    row = text[text.rindex("Example") :].partition("The model learns")[0]
    green = "".join(re.findall(r"\x1b\[1;(?:32|38;5;71)m([^\x1b]*)", row.partition("tab")[2]))
    assert green == "first line↵↵␣␣second 👩\u200d👩\u200d👧 line↵"
    assert re.findall(r"\x1b\[1;30;42m([^\x1b]*)", row) == ["<end_of_turn>", "<eos>"]
    assert "⟦" not in text and "‹" not in text


def test_without_colours_the_trained_tokens_stand_in_brackets(found: Inspection) -> None:
    text = text_of(found)
    assert "\x1b" not in text
    row = text[text.rindex("tab\n") :].partition("The model learns")[0]
    (trained,) = re.findall("⟦(.*?)⟧", row, re.DOTALL)
    assert trained == "first line↵\n↵\n␣␣second 👩\u200d👩\u200d👧 line‹<end_of_turn>›↵\n‹<eos>›"


def test_every_line_fits_80_columns(found: Inspection) -> None:
    from rich.cells import cell_len

    assert max(cell_len(line) for line in text_of(found, ids=True).splitlines()) <= 80


def test_text_from_right_to_left_is_isolated(tmp_path: Path) -> None:
    row = text_of(examined(tmp_path, row=7)).partition("⇥ tab")[2]
    lines = [line for line in row.splitlines() if "أ" in line or "ما" in line]
    assert len(lines) == 3
    for line in lines:
        assert line.count("\u2068") == line.count("\u2069") == 1, line
        inside = line.partition("\u2068")[2].partition("\u2069")[0]
        assert "<end_of_turn>" not in inside and "⟦" not in inside


def test_a_long_row_is_shortened_and_says_by_how_much(tmp_path: Path) -> None:
    text = text_of(examined(tmp_path, row=11))
    assert " … 382 tokens more … " in " ".join(text.split("\n")).replace("  ", " ")
    assert len(text.splitlines()) < 70


def test_the_table_of_ids_has_a_line_for_every_token(found: Inspection) -> None:
    lines = text_of(found, ids=True).partition("position")[2].splitlines()[1:]
    assert [int(line.split()[0]) for line in lines] == list(range(found["example"]["tokens"]))


# ---- the page


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_rows_cannot_break_out_of_the_page(found: Inspection) -> None:
    hostile = "</style></pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'"
    text = json.dumps(found, ensure_ascii=False)
    for harmless in ("s3://data/chat.jsonl: ", "s3://runs/a", "s3://models/a", "second", "chat.jsonl:"):
        text = text.replace(harmless, json.dumps(hostile)[1:-1])
    dangerous: Any = json.loads(text)
    dangerous["summary"]["warnings"] = [hostile]
    dangerous["example"]["pieces"][3]["text"] = dangerous["batch"]["rows"][0]["words"] = hostile
    dangerous["chat_template"] = dangerous["example"]["source"] = dangerous["ends"][0] = hostile
    page = Page(page_of(dangerous))
    assert set(page.tags) <= set(Page(page_of(found)).tags) and "script" not in page.tags and "img" not in page.tags
    assert page.tags.count("style") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "".join(page.texts).count("<script>alert(1)</script>") >= 6


def test_the_page_needs_nothing_from_elsewhere(found: Inspection) -> None:
    page = Page(page_of(found))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href")]
    assert "url(" not in page_of(found) and "@import" not in page_of(found)


def test_the_page_shows_the_whole_row_and_the_first_rows_of_the_run(found: Inspection) -> None:
    text = page_of(found)
    assert text.count('<div class="card">') == len(CHATS) and len(found["more"]) == len(CHATS)
    assert "prefers-color-scheme: dark" in text


# ---- the facts


def test_good_data_are_not_worth_a_second_look(found: Inspection) -> None:
    assert not [name for name, (_, odd) in changed(found).items() if odd]


@pytest.mark.parametrize(
    ("figures", "name", "words"),
    [
        ({"end_of_turn_rate": 0.5}, "end of turn", "a target in 50% of the rows"),
        ({"bos_per_row": [0, 2]}, "BOS", "0 to 2 in a row"),
        ({"bos_per_row": [2, 2]}, "BOS", "2 in every row"),
        ({"dropped": {"overlong": 3}, "seen": 30}, "too long", "3 left out (10%) of 30 rows"),
        ({"truncated": 1, "split": 2, "seen": 20}, "too long", "1 cut (5%), 2 split (10%) of 20 rows"),
        ({"duplicates": 3}, "repeated", "3 training rows (25%)"),
        ({"overlap": 2, "eval_rows": 4}, "repeated", "2 of 4 evaluation rows among the training rows"),
        ({"trained_tokens": 1327}, "tokens", "(100%)"),
    ],
)
def test_what_is_worth_a_second_look_is_marked(
    found: Inspection, figures: dict[str, Any], name: str, words: str
) -> None:
    value, odd = changed(found, **figures)[name]
    assert words in value and odd


def test_rows_that_an_older_version_prepared_are_shown_without_the_figures_it_lacked(found: Inspection) -> None:
    figures = {"seen", "split", "end_of_turn_rate", "duplicates", "overlap", "sources"}
    older: Any = {**found, "summary": {name: at for name, at in found["summary"].items() if name not in figures}}
    assert "format messages" in text_of(older) and "repeated" not in text_of(older)
