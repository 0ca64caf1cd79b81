import pytest
from rich.text import Text

from job.report.wording import sample_line, spoken_bytes, spoken_pace, spoken_seconds, spoken_value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m"), (720, "12m"), (3599, "1h 00m"), (11100, "3h 05m"), (187200, "2d 04h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert spoken_seconds(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(812, "812 B"), (999_600, "1.0 MB"), (4.9e9, "4.9 GB"), (310e6, "310 MB"), (2e12, "2.0 TB")]
)
def test_sizes(size: float, text: str) -> None:
    assert spoken_bytes(size) == text


def test_fast_steps_are_counted_per_second_and_slow_ones_timed() -> None:
    assert (spoken_pace(0.25), spoken_pace(1.24)) == ("4.0 steps/s", "1.2 s/step")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.23456, "1.235"),
        (0.0, "0"),
        (3e-6, "3.00e-06"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (1e30, "1.00e+30"),
    ],
)
def test_values_of_any_size_stay_short(value: float, text: str) -> None:
    assert spoken_value(value) == text


def test_a_sample_fits_its_line_whatever_the_model_wrote() -> None:
    figures = {"distinct_words": 3, "words": 900, "repetition": 0.96}
    line = sample_line({"prompt": "微调测试" * 20, "generation": "one\ntwo \x1b[31m three " * 99, **figures}, 100)
    assert Text(line).cell_len <= 100
    assert "\x1b" not in line and "\n" not in line
    assert line.endswith("(3 distinct of 900 words, 96% repeated)")
