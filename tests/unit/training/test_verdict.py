"""What is to be known of rows that are used, or not, is said with how many they are and what to do."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from job.prepare import prepare
from job.rundir import ALLOW_CODE, Prepare, RunDir
from tests import datafiles, preparing
from tests.preparing import URI, chat, chats, failure, train_rows


def said(run: RunDir, word: str) -> list[str]:
    return [line for line in prepare(run).warnings if word in line]


def changed(run: RunDir, **options: Any) -> RunDir:
    """With other options of the config; those of `model` are added to what it has."""
    request = Prepare.read(run)
    model = {**request.config["model"], **options.pop("model", {})}
    Prepare({**request.config, **options, "model": model}, request.train, request.eval).write(run)
    return run


# ---- rows that become several


def spelled(run: RunDir) -> list[str]:
    """Each prepared row, what is trained between brackets."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    shown = []
    for ids, labels in map(train_rows(run).row, range(len(train_rows(run)))):
        first = next(at for at, label in enumerate(labels.tolist()) if label != -100)
        shown.append(f"{tokenizer.decode(ids[:first])}[{tokenizer.decode(ids[first:])}]")
    return shown


def test_a_short_answer_keeps_the_end_of_its_long_question(tmp_path: Path) -> None:
    rows = b"q\ta\n" + b"one 1\ttwo 1\n" * 3
    columns = {"prompt": "Q: {q}\nA:", "completion": " {a}"}
    run = preparing.ready(tmp_path, rows, name="a.tsv", columns=columns, max_length=12, overlong="split")
    whole = preparing.ready(tmp_path, rows, name="a.tsv", columns=columns)
    summary, before = prepare(run), prepare(whole)
    assert before.longest_row > 12 and (summary.rows, summary.longest_row) == (3, 12)
    assert all(row.startswith("<bos>") and row.endswith("A:[ two 1<eos>]") for row in spelled(run))
    assert summary.trained_tokens == before.trained_tokens
    assert said(run, "lack the beginning") == [
        "3 rows lack the beginning of their question, which did not fit ahead of the answer; raise data.max_length"
    ]


@pytest.mark.parametrize("most", [40, 50, 60])
def test_a_short_answer_behind_a_long_chat_turn_stays_whole_with_its_end(tmp_path: Path, most: int) -> None:
    run = preparing.ready(tmp_path, [chat("word " * 60, "short")], max_length=most, overlong="split")
    summary = prepare(run)
    (row,) = spelled(run)
    assert row.endswith("word<end_of_turn>\n<start_of_turn>model\n[short<end_of_turn>\n<eos>]")
    assert summary.longest_row == most and not said(run, "middle of an answer")


def test_rows_that_begin_in_the_middle_of_an_answer_are_counted(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [chat("say", "word " * 30), *chats(2)], max_length=60, overlong="split")
    begun = [row for row in spelled(run_of(run)) if "start_of_turn" not in row]
    assert len(begun) > 1 and said(run, "middle") == [
        f"{len(begun)} rows begin in the middle of an answer, without its question; raise data.max_length"
    ]


def run_of(run: RunDir) -> RunDir:
    prepare(run)
    return run


def test_windows_of_plain_text_are_no_matter(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [{"text": "word " * 30}], max_length=20, overlong="split")
    assert prepare(run).rows > 3 and not said(run, "raise data.max_length")


def test_tokens_that_fall_away_in_splitting_are_counted(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [chat("say", "word" + "\n" * 90 + "x")], max_length=20, overlong="split")
    (line,) = said(run, "white space")
    lost, _, trained = line.partition(" tokens to train left out")[0].split()[0:3]
    whole = prepare(preparing.ready(tmp_path, [chat("say", "word" + "\n" * 90 + "x")])).trained_tokens
    assert int(trained) == whole and int(lost) == whole - prepare(run).trained_tokens > 0


# ---- rows that the user's own code leaves out


def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, rows: Sequence[Any], **options: Any) -> RunDir:
    monkeypatch.setenv(ALLOW_CODE, "1")
    module = tmp_path / "hooks.py"
    module.write_text(f"def row(row):\n    {code}\n", encoding="utf-8")
    (tmp_path / "runs").mkdir(exist_ok=True)
    return changed(preparing.ready(tmp_path / "runs", rows, **options), hooks=str(module))


KEEP_FEW = "return row if 'question 1' in str(row) or 'long' in str(row) else None"


def test_rows_left_out_by_hooks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hooked(tmp_path, monkeypatch, KEEP_FEW, chats(5))
    summary = prepare(run)
    assert (summary.rows, summary.seen, summary.dropped) == (1, 5, {"left out by hooks": 4})
    assert "4 of 5 rows left out by hooks" in summary.warnings


def test_rows_left_out_by_hooks_do_not_hide_those_that_are_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = hooked(tmp_path, monkeypatch, KEEP_FEW, [*chats(20), chat("long", "b " * 50)], max_length=60)
    assert failure(run).startswith("data.train: 1 of 12 rows (8%), with ")


def test_when_hooks_leave_out_all_rows_that_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hooked(tmp_path, monkeypatch, "return None", chats(3))
    assert failure(run) == "data.train: no row to use: hooks row() left out all 3 rows"


# ---- empty answers, empty prompts


@pytest.mark.parametrize(
    "row, advice",
    [
        (chat("a", ""), "leave it out, or give its turn weight 0"),
        ({"prompt": "a", "completion": ""}, "remove the row, or fill the column"),
        ({"instruction": "a", "output": ""}, "remove the row, or fill the column"),
    ],
)
def test_the_advice_on_an_empty_answer_fits_the_format(tmp_path: Path, row: Any, advice: str) -> None:
    message = failure(preparing.ready(tmp_path, [row]))
    assert message == f"{URI}:1: an answer is empty, which teaches to say nothing; {advice}"


@pytest.mark.parametrize(
    "empty, full",
    [
        ({"prompt": " ", "completion": "b"}, {"prompt": "a", "completion": "b"}),
        ({"instruction": "", "input": "", "output": "b"}, {"instruction": "a", "input": "", "output": "b"}),
        (chat("", "b"), chat("a", "b")),
    ],
)
@pytest.mark.parametrize("tokenizer", ["gemma", "gpt-neo"])
def test_empty_prompts_are_counted(tmp_path: Path, empty: Any, full: Any, tokenizer: str) -> None:
    template = "chatml" if tokenizer == "gpt-neo" and "messages" in empty else None
    run = preparing.ready(tmp_path, [empty, full, full], tokenizer=tokenizer, template=template)
    assert [line.partition(":")[0] for line in said(run, "empty prompt")] == ["1 of 3 rows have an empty prompt"]
    everything = preparing.ready(tmp_path, [empty, full], tokenizer=tokenizer, template=template, loss="all")
    assert not said(everything, "empty prompt")


def test_plain_text_has_no_prompt_to_be_empty(tmp_path: Path) -> None:
    assert not said(preparing.ready(tmp_path, [{"text": "a"}]), "empty prompt")


# ---- rows that occur more than once


def named(tmp_path: Path, train: Sequence[str], evaluation: Sequence[str] = (), uris: Sequence[str] = ()) -> RunDir:
    """Sources in files of these names, all with the same rows; `uris`: other names for them, in the same order."""
    run = preparing.ready(tmp_path, chats(1), **({"eval": "e"} if evaluation else {}))
    listed = []
    for name, uri in zip([*train, *evaluation], uris or [*train, *evaluation], strict=True):
        path = run.data / name
        path.write_bytes(datafiles.jsonl(chats(2)))
        listed.append({"uri": uri, "path": str(path)})
    Prepare(Prepare.read(run).config, listed[: len(train)], listed[len(train) :]).write(run)
    return run


def test_a_file_that_is_named_twice_is_said_to_be(tmp_path: Path) -> None:
    (line,) = said(named(tmp_path, ["a.jsonl", "a.jsonl"]), "the same")
    assert "(the first: a.jsonl:1; a.jsonl is named twice in data.train)" in line
    (line,) = said(named(tmp_path, ["a.jsonl"], ["a.jsonl"]), "evaluation rows")
    assert "(the first: a.jsonl:1; a.jsonl is named in data.train and in data.eval)" in line


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    run = named(tmp_path, ["x.jsonl", "y.jsonl"], uris=["one/a.jsonl", "two/a.jsonl"])
    assert "(the first: two/a.jsonl:1, as one/a.jsonl:1)" in said(run, "the same")[0]


def test_parts_of_a_row_may_be_the_same(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [{"text": "\n".join(["word"] * 90)}], max_length=16, overlong="split")
    (line,) = said(run, "the same")
    assert "(the first: two parts of chat.jsonl:1)" in line


# ---- added tokens


def test_an_added_token_that_no_training_row_holds_is_named(tmp_path: Path) -> None:
    run = preparing.ready(tmp_path, [chat("a <one>", "b"), chat("a", "<two>")], [chat("a", "<three>")])
    added = changed(run, model={"add_tokens": ["<one>", "<two>", "<three>"]})
    assert said(added, "add_tokens") == ["model.add_tokens: '<three>' is in no training row: it will not be trained"]
