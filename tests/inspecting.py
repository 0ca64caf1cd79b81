"""A fixed data set in several scripts, examined; and the golden pages made of it.

Run as `python -m tests.inspecting` it writes the golden files anew: look at them before you keep them.
"""

import io
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from job.config import RunConfig
from job.examine import examine
from job.inspection import Inspection
from job.prepare import prepare
from job.report.overview import show
from job.report.page import page
from job.rundir import Prepare, RunDir
from job.tiny import TALKS
from tests.preparing import ready

ROOT = Path(__file__).parents[1]
GOLDEN_TEXT, GOLDEN_PAGE = (ROOT / "tests" / "golden" / name for name in ("inspect.txt", "inspect.html"))
CHATS = [
    *(talk for number, talk in enumerate(TALKS) if number != 5),  # one of them stands there twice
    ("ما هو عملك؟ (short)", "أجيب عن الأسئلة القصيرة: 1, 2, 3."),
    ("हिन्दी और ไทย", "नमस्ते สวัสดี"),
    ("two  spaces,\ta tab", "first line\n\n  second 👩‍👩‍👧 line"),
    ("<script>alert(1)</script>", "</style><b>&amp;</b> \u202ereversed\u200b"),
    ("Count!", "one two three " * 60),
]
ROW = 9  # the one with white space and an emoji of several characters
WARNING = "what the gates have to say of the rows: <b>one line</b>"


def chat_rows() -> list[Any]:
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in CHATS
    ]


def examined(folder: Path, *, row: int | None = ROW, ranks: int = 2, more: int = 20, **options: Any) -> Inspection:
    """What `inspect` would show of the data set, but for what changes with every version."""
    run = ready(folder, chat_rows(), **options)
    config = run_config(run)
    summary = {**vars(prepare(run, 0)), "fingerprint": "0" * 64, "warnings": [WARNING]}
    return {
        **examine(run, config, ranks=ranks, row=row, more=more),
        "run": config.run,
        "begun": False,
        "base": config.model.base,
        "tokenizer": config.model.base,
        "max_length": config.data.max_length,
        "chat_template": summary.pop("chat_template"),
        "summary": summary,
    }


def run_config(run: RunDir) -> RunConfig:
    config = RunConfig.from_dict(Prepare.read(run).config)
    return config.replace({"train.global_batch_size": 8, "train.token_budget": 1024})


def text_of(found: Inspection, *, colour: bool = False, width: int = 80, ids: bool = False) -> str:
    """What goes to stdout: to a terminal with colours, or to a file."""
    system = "truecolor" if colour else None
    out = io.StringIO()
    show(Console(file=out, width=width, force_terminal=colour, color_system=system, no_color=not colour), found, ids)
    return "".join(line.rstrip() + "\n" for line in out.getvalue().splitlines())


def page_of(found: Inspection) -> str:
    from job import __version__

    return page(found).replace(f"sft-job {__version__}", "sft-job VERSION")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = examined(Path(folder))
    GOLDEN_TEXT.write_text(text_of(made, ids=True), encoding="utf-8")
    GOLDEN_PAGE.write_text(page_of(made), encoding="utf-8")
