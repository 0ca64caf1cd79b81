"""Figures that show at a glance whether a generated text says something or repeats itself."""

import re
from typing import TypedDict

# Chinese and Japanese are written without spaces: there each character counts as a word.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+(?:['’](?:(?![{_UNSPACED}])\w)+)*")
_GRAM = 3


class TextFigures(TypedDict):
    distinct_words: int
    words: int
    repetition: float


def text_figures(text: str) -> TextFigures:
    """Distinct words, words, and repetition of a text.

    `repetition` is the share, from 0 to 1, of the runs of three words that occurred before in the same text:
    1 - distinct trigrams / trigrams (rep-3 in Welleck et al., "Neural Text Generation with Unlikelihood Training").
    It is 0 where there are fewer than three words. Words are compared without regard to case.
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    grams = [tuple(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)]
    repetition = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return TextFigures(distinct_words=len(set(words)), words=len(words), repetition=round(repetition, 4))
