"""A tokenizer comes with the chat template that the run names."""

from pathlib import Path

import pytest

from job.errors import ConfigError, DataError
from job.training.tokenizer import built_in_templates, chat_template_text, load_tokenizer
from tests import families


def test_every_built_in_template_is_named_and_holds_text() -> None:
    assert built_in_templates() == ["chatml", "gemma", "llama3"]
    for name in built_in_templates():
        assert "add_generation_prompt" in str(chat_template_text(name))


def test_a_template_that_is_neither_a_file_nor_built_in_names_the_built_ins(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.chat_template: nowhere: .*one of the built-in chatml, gemma, llama3"
    ):
        chat_template_text("nowhere")
    (tmp_path / "a.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        chat_template_text(str(tmp_path / "a.jinja"))


def test_a_tokenizer_takes_the_template_given(tmp_path: Path) -> None:
    families.tokenizer("qwen25").save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).chat_template == families.template("qwen25")
    assert load_tokenizer(tmp_path, "other").chat_template == "other"


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.tokenizer: cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)
