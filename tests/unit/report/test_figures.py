import pytest

from job.report.figures import text_figures


def test_chinese_characters_count_as_words() -> None:
    assert text_figures("我学会了，我学会了") == {"distinct_words": 4, "words": 8, "repetition": 0.3333}


def test_a_mixed_text_counts_both_kinds_of_words() -> None:
    assert text_figures("LoRA微调 is fun")["words"] == 5


def test_words_are_compared_without_case_and_keep_their_apostrophes() -> None:
    assert text_figures("Don't don't, DON’T!")["words"] == 3
    assert text_figures("The the THE")["distinct_words"] == 1


@pytest.mark.parametrize(
    ("text", "repetition"),
    [("", 0.0), ("two words", 0.0), ("a b c d e f", 0.0), ("a b c a b c", 0.25), ("a " * 102, 0.99)],
)
def test_repetition_is_the_share_of_repeated_trigrams(text: str, repetition: float) -> None:
    assert text_figures(text)["repetition"] == repetition
