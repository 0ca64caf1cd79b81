"""YAML 1.2, with lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from job.config.source import Source

Refusal = Callable[..., list[str]]


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return Source.read(path)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2e-4", 2e-4),
        ("2E+4", 2e4),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("012", 12),
        ("0o14", 12),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("no", "no"),
        ("On", "On"),
        ("yes", "yes"),
        ("2026-11-01", "2026-11-01"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ('"null"', "null"),
        ("!!str 5", "5"),
        ("0.2", 0.2),
        ("15m", "15m"),
        ("500 steps", "500 steps"),
        ("微调测试", "微调测试"),
    ],
)
def test_scalars_are_read_as_yaml_1_2(tmp_path: Path, written: str, value: object) -> None:
    found = read(tmp_path, f"a: {written}\n").tree["a"]
    assert (type(found), found) == (type(value), value)


def test_keys_are_text_as_they_are_written(tmp_path: Path) -> None:
    assert read(tmp_path, "no: 1\n5: 2\n").tree == {"no": 1, "5": 2}


def test_an_alias_repeats_its_anchor(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x {b: 1}\nc: *x\n").tree["c"] == {"b": 1}


def test_an_alias_of_itself_is_refused(refusal: Refusal) -> None:
    assert any("refers to itself" in line for line in refusal("trl: &x {a: *x}\n"))


def test_a_duplicate_key_is_refused_with_both_lines(refusal: Refusal) -> None:
    lines = refusal(
        "run: a\nmodel: {base: b}\ndata: {train: c}\nlora: {}\ntrain:\n  seed: 1\n  epochs: 1\n  seed: 2\nrun: b\n"
    )
    assert lines[1:] == [
        "run.yaml:1: run: is given twice, in run.yaml:1 and run.yaml:9; remove one",
        "run.yaml:6: train.seed: is given twice, in run.yaml:6 and run.yaml:8; remove one",
    ]


def test_a_tag_is_never_dropped_silently(refusal: Refusal) -> None:
    (line,) = refusal("run: !join x\nmodel: {base: b}\ndata: {train: c}\nlora: {}\n")
    assert line.startswith("run.yaml:1: run: the tag !join is unknown")


def test_lora_left_empty_is_no_decision(refusal: Refusal) -> None:
    (line,) = refusal("run: a\nmodel: {base: b}\ndata: {train: c}\nlora:\n")
    assert line == "run.yaml:4: lora: is empty; write {} for LoRA with its defaults, or null for full fine-tuning"
