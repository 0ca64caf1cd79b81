"""The tokenizer of a run, with the chat template that the run uses."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib import resources
from importlib.machinery import ModuleSpec
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from job.errors import ConfigError, DataError

TEMPLATES = "templates"


def leave_torch_out() -> None:
    """Have transformers work as where there is no torch: tokenizers don't need it, and it costs seconds to import.

    For programs that never train: what transformers found out about torch stays with the process.
    """
    if "torch" in sys.modules or "transformers" in sys.modules:
        return
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    find_spec = importlib.util.find_spec

    def find_other(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torch" else find_spec(name, package)

    importlib.util.find_spec = find_other
    try:
        import transformers  # noqa: F401
    finally:
        importlib.util.find_spec = find_spec


def load_tokenizer(
    folder: Path, chat_template: str | None = None, trust_remote_code: bool = False, added: Sequence[str] = ()
) -> Any:
    """The tokenizer whose files lie in `folder`; `chat_template` (a template's text) takes the place of its own.

    `added`: tokens it is to know beside its own. Those that the chat template writes are special: they can end a turn.

    Raises DataError when there is no tokenizer or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # every tokenizer class has its own ways of failing
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"model.tokenizer: cannot be read ({reason})") from error
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    add_tokens(tokenizer, added)
    return tokenizer


def add_tokens(tokenizer: Any, texts: Sequence[str]) -> None:
    from transformers import AddedToken

    template = own_chat_template(tokenizer) or ""
    for text in texts:
        tokenizer.add_tokens(
            AddedToken(text, normalized=False, special=text in template), special_tokens=text in template
        )


def chat_template_text(wanted: str | None) -> str | None:
    """The text of `model.chat_template`: a built-in's name or a file; None stays None. Raises ConfigError."""
    if wanted is None:
        return None
    names = built_in_templates()
    if wanted in names:
        return _templates().joinpath(f"{wanted}.jinja").read_text(encoding="utf-8")
    try:
        return Path(wanted).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(
            f"model.chat_template: {wanted}: {reason}; give a file or one of the built-in {', '.join(names)}"
        ) from error


def built_in_templates() -> list[str]:
    """Names that `model.chat_template` knows."""
    return sorted(
        entry.name.removesuffix(".jinja") for entry in _templates().iterdir() if entry.name.endswith(".jinja")
    )


def _templates() -> Traversable:
    return resources.files(__package__).joinpath(TEMPLATES)


def own_chat_template(tokenizer: Any) -> str | None:
    """The text of the template that `tokenizer` renders chats with, or None where it has none."""
    if not tokenizer.chat_template:
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:  # several named templates, none of them the default
        return None
