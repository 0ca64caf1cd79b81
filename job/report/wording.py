"""Numbers and events as a person reads them in one line of a terminal or a log."""

from collections.abc import Mapping
from typing import Any

from rich.text import Text


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def spoken_seconds(seconds: float) -> str:
    """A duration with one or two units: `8s`, `12m`, `3h 05m`, `2d 04h`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}h"


def spoken_bytes(size_bytes: float) -> str:
    """A size in decimal units with at most three figures after rounding: `812 B`, `4.9 GB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def spoken_pace(seconds_per_step: float) -> str:
    """Steps per second where they are fast, seconds per step where they are slow."""
    if seconds_per_step <= 0:
        return "? s/step"
    if seconds_per_step < 1:
        return f"{1 / seconds_per_step:.1f} steps/s"
    return f"{seconds_per_step:.1f} s/step"


def spoken_value(value: float) -> str:
    """Four significant figures, without an exponent where it can be read without."""
    if value != value or abs(value) in (0.0, float("inf")) or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3f}" if 0.1 <= abs(value) < 1000 else f"{value:.4g}"
    return f"{value:.2e}"


def step_name(step: int, steps: int | None) -> str:
    return f"step {step}/{steps}" if steps else f"step {step}"


def metrics_line(metrics: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {spoken_value(value)}" for name, value in numbers(metrics).items())


def sample_line(row: Mapping[str, Any], width_cells: int) -> str:
    """A prompt and what the model made of it, cut to a line, with the figures of the whole generation."""
    repeated = f", {row['repetition']:.0%} repeated" if row["repetition"] else ""
    figures = f"({row['distinct_words']} distinct of {row['words']} words{repeated})"
    room = max(20, width_cells - len(figures) - len(" →   "))
    prompt = _cut(row["prompt"], room // 3)
    generation = _cut(row["generation"], room - Text(prompt).cell_len)
    return f"{prompt} → {generation}  {figures}" if generation else f"{prompt} → (nothing)"


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries that are numbers; a rank may leave one out, or None where it has none."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _cut(text: str, width_cells: int) -> str:
    # A model may well generate what a terminal takes as a command.
    line = Text("".join(c if c.isprintable() else "�" for c in " ".join(text.split())))
    line.truncate(width_cells, overflow="ellipsis")
    return line.plain
