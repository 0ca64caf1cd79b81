"""Every gate, with a file that it must stop or speak of: one line that names file, line and reason."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from job.prepare import prepare
from job.rundir import RunDir
from job.training.batches import Schedule
from job.training.verdict import few_steps
from tests import preparing
from tests.preparing import URI, chat, chats, failure, sources, train_rows

Ready = Callable[..., RunDir]
LONG = [chat("a", "b"), chat("a", "b " * 40), chat("a " * 40, "b")]


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return partial(preparing.ready, tmp_path)


def said(run: RunDir, word: str) -> str:
    """The one warning that holds `word`."""
    (warning,) = [line for line in prepare(run).warnings if word in line]
    return warning


# ---- rows that cannot be used


def test_bad_rows_are_named_by_file_and_line_up_to_five_then_counted_by_reason(ready: Ready) -> None:
    good = json.dumps(chat("a", "b")).encode()
    two_users = json.dumps({"messages": [{"role": "user", "content": "a"}] * 2 + chat("a", "b")["messages"]}).encode()
    lines = [good, b"{", b"", json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode(), two_users]
    message = failure(ready(b"\n".join([*lines, *[b"[]"] * 4])))
    parts = message.split("; s3://")
    assert parts[0].startswith(f"{URI}:2: not JSON") and len(parts) == 5
    assert parts[1].startswith("data/chat.jsonl:4: no assistant turn")
    assert parts[2].startswith("data/chat.jsonl:5: the chat template refuses it: Conversation roles must alternate")
    assert "; and 2 more bad rows (of all 7: 4 x it is a list, not an object, 1 x " in message


def test_a_row_ahead_of_the_first_that_shows_the_format_is_judged_by_itself(ready: Ready) -> None:
    message = failure(ready([{"question": "a"}, chat("a", "b")]))
    assert message.startswith(f"{URI}:1: neither `messages` nor `prompt`") and ":2" not in message


@pytest.mark.parametrize("data", [b"", b"\n \r\n"])
def test_an_empty_data_set_is_refused(ready: Ready, data: bytes) -> None:
    assert failure(ready(data)) == "data.train: no row to use: s3://data/chat.jsonl holds no row"


def test_missing_columns_are_named_with_those_that_are_there(ready: Ready) -> None:
    message = failure(ready([{"text": "a"}], columns={"prompt": "text", "completion": "target"}))
    assert message == f"{URI}:1: no column `target` (it has: text)"


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_answer_is_a_bad_row(ready: Ready, answer: str) -> None:
    pairs = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": answer}]
    for rows in (pairs, [chat("a", "b"), chat("a", "b", "c", answer)]):
        assert failure(ready(rows)).startswith(f"{URI}:2: an answer is empty")


def test_an_empty_text_has_nothing_to_train(ready: Ready) -> None:
    message = failure(ready([{"text": "a b"}, {"text": ""}], tokenizer="gpt-neo", append_eos=False))
    assert message.startswith(f"{URI}:2: no trained token")


def test_bos_that_stands_twice_is_a_bad_row(ready: Ready, tmp_path: Path) -> None:
    twice = tmp_path / "twice.jinja"
    body = "{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    asked = "{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
    twice.write_text(f"<bos><bos>{body}{asked}", encoding="utf-8")
    assert failure(ready(chats(2), template=str(twice))).startswith(f"{URI}:1: BOS stands twice")


def test_bytes_that_are_no_text_are_a_bad_row(ready: Ready) -> None:
    good = json.dumps(chat("a", "b")).encode()
    assert failure(ready(good + b"\n" + good.replace(b"a", b"\xff", 1))).startswith(f"{URI}:2: not UTF-8 text")


def test_text_that_lost_characters_is_counted(ready: Ready) -> None:
    run = ready([chat("a", "b"), chat("na\ufffdve", "b"), chat("a\0", "c")])
    assert said(run, "U+FFFD").startswith("2 of 3 rows hold U+FFFD or NUL")


# ---- all rows together


def test_data_that_never_teach_where_to_stop_are_refused(ready: Ready, tmp_path: Path) -> None:
    plain = tmp_path / "plain.jinja"
    plain.write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}"
                     "assistant: {% endif %}", encoding="utf-8")  # fmt: skip
    assert "no end-of-turn token is ever a target" in failure(ready(chats(2), template=str(plain), append_eos=False))
    run = ready(chats(2), template=str(plain))
    assert prepare(run).end_of_turn_ids == [1]  # the EOS that `auto` puts behind


def test_a_tokenizer_without_chat_template_takes_a_built_in(ready: Ready) -> None:
    assert "set model.chat_template" in failure(ready(chats(1), tokenizer="gpt-neo"))
    summary = prepare(ready(chats(1), tokenizer="gpt-neo", template="chatml"))
    assert summary.chat_template is not None and "<|im_start|>" in summary.chat_template


def test_a_folder_without_tokenizer_is_a_data_error(ready: Ready) -> None:
    run = ready(chats(1))
    shutil.rmtree(run.tokenizer)
    run.tokenizer.mkdir()
    assert failure(run).startswith("model.tokenizer: cannot be read")


def test_rows_that_are_the_same_are_counted_with_the_places_of_the_first(ready: Ready) -> None:
    run = ready([chat("a", "b"), chat("c", "d"), chat("c", "d"), chat("a", "b"), chat("a", "d")])
    assert said(run, "the same").startswith("2 of 5 rows are the same as an earlier one")
    assert "(the first: chat.jsonl:3, as chat.jsonl:2)" in said(run, "the same")
    assert prepare(run).duplicates == 2
    assert not any("the same" in line for line in prepare(ready(chats(5))).warnings)


def test_rows_that_are_trained_otherwise_are_not_the_same(ready: Ready) -> None:
    other = chat("a", "b", "c", "d")
    other["messages"][1]["weight"] = 0
    assert prepare(ready([chat("a", "b", "c", "d"), other])).duplicates == 0


def test_evaluation_rows_that_stand_in_the_training_rows_are_counted(ready: Ready) -> None:
    run = ready(chats(3), [chat("x", "y"), *chats(2)])
    assert said(run, "evaluation").startswith("2 of 3 evaluation rows stand among the training rows too")
    assert "(the first: eval.jsonl:2, as chat.jsonl:1)" in said(run, "evaluation")
    assert prepare(run).overlap == 2
    assert prepare(ready(chats(3), [chat("x", "y")])).overlap == 0


# ---- rows that are too long


def short_and_long(short: int, long: int, words: int = 40) -> list[Any]:
    return [*chats(short), *(chat(f"q{number}", "b " * words) for number in range(long))]


def test_overlong_rows_are_dropped_and_counted(ready: Ready) -> None:
    run = ready([*[chat("a", "b c d e f g h " * 3)] * 39, chat("a", "b " * 50)], max_length=60)
    summary = prepare(run)
    assert (summary.rows, summary.seen, summary.dropped) == (39, 40, {"overlong": 1})
    assert "1 of 40 rows left out: longer than data.max_length 60 tokens (data.overlong: drop)" in summary.warnings


def test_dropping_more_than_a_tenth_of_the_rows_is_refused_with_the_length_that_keeps_them(ready: Ready) -> None:
    message = failure(ready(short_and_long(8, 2), max_length=60))
    longest = max(lengths(ready(short_and_long(8, 2))))
    assert message.startswith("data.train: 2 of 10 rows (20%)")
    assert f"set data.max_length to {longest}, which keeps 99% of both" in message


def test_dropping_few_rows_with_more_than_a_tenth_of_the_targets_is_refused(ready: Ready) -> None:
    message = failure(ready(short_and_long(39, 1, words=100), max_length=60))
    assert message.startswith("data.train: 1 of 40 rows (2%), with ") and "data.max_length" in message


def test_dropping_evaluation_rows_is_refused_by_itself(ready: Ready) -> None:
    assert failure(ready(chats(20), short_and_long(3, 1), max_length=60)).startswith("data.eval: 1 of 4 rows (25%)")


def test_the_length_that_keeps_99_of_100_rows_is_not_that_of_the_longest(ready: Ready) -> None:
    rows = [chat("q", "b " * words) for words in [*[10] * 169, *[20] * 30, 21]]
    there = sorted(lengths(ready(rows)))
    assert there[-1] > there[-2]
    assert f"set data.max_length to {there[-2]}," in failure(ready(rows, max_length=there[0]))


def lengths(run: RunDir) -> list[int]:
    prepare(run)
    return [int(length) for length in train_rows(run).lengths]


def test_overlong_rows_are_cut_and_those_left_without_a_target_dropped(ready: Ready) -> None:
    run = ready(LONG, max_length=30, overlong="truncate")
    summary = prepare(run)
    assert (summary.rows, summary.truncated, sum(summary.dropped.values())) == (2, 1, 1)
    assert train_rows(run).lengths.tolist()[1] == 30
    assert any("1 of 3 rows cut" in line for line in summary.warnings)


def test_overlong_rows_are_split_into_rows_that_train_the_same_tokens(ready: Ready) -> None:
    run, whole = ready(LONG, max_length=30, overlong="split"), ready(LONG)
    summary, before = prepare(run), prepare(whole)
    assert (summary.split, summary.trained_tokens, summary.dropped) == (2, before.trained_tokens, {})
    assert max(train_rows(run).lengths) <= 30 and set(sources(train_rows(run))) == set(sources(train_rows(whole)))
    assert summary.rows == len(train_rows(run)) > 3
    assert f"2 of 3 rows split into {summary.rows - 1}" in "".join(summary.warnings)


def test_overlong_rows_are_refused_where_the_config_says_so(ready: Ready) -> None:
    message = failure(ready(LONG, max_length=30, overlong="error"))
    assert message.startswith(f"{URI}:2: ") and "more than data.max_length 30" in message


def test_when_cutting_leaves_nothing_of_any_row_the_reason_is_given(ready: Ready) -> None:
    message = failure(ready([LONG[2]], max_length=5, overlong="truncate"))
    assert "data.train: no row to use: 1 of 1 rows left out: longer than data.max_length 5" in message


# ---- few steps


def test_a_run_of_few_steps_is_told_what_would_make_it_longer(ready: Ready) -> None:
    warning = said(ready([chat(f"q {n}", f"a {n}") for n in range(640)]), "optimizer steps")
    assert warning == (
        "30 optimizer steps in all, fewer than 50, teach little: "
        "set train.global_batch_size: 39 (51 steps) or train.epochs: 5"
    )


@pytest.mark.parametrize("rows, batch, epochs", [(1, 64, 1), (30, 7, 2.5), (100, 64, 3), (2000, 64, 1), (49, 1, 1)])
def test_what_is_suggested_is_enough_and_no_smaller_than_needed(rows: int, batch: int, epochs: float) -> None:
    schedule = Schedule(rows, batch, epochs, None, 1)
    told = few_steps(schedule)
    assert told is not None
    more = int(told.rpartition("train.epochs: ")[2])
    assert Schedule(rows, batch, more, None, 1).steps >= 50 > Schedule(rows, batch, more - 1, None, 1).steps
    smaller = [size for size in range(1, batch) if Schedule(rows, size, epochs, None, 1).steps >= 50]
    assert (f"train.global_batch_size: {max(smaller)} " in told) if smaller else "global_batch_size" not in told


def test_enough_steps_are_not_spoken_of() -> None:
    assert few_steps(Schedule(50, 1, 1, None, 1)) is None
    assert "raise train.max_steps" in (few_steps(Schedule(5000, 1, 1, 20, 1)) or "")


# ---- figures


def test_the_summary_counts_what_is_to_be_seen_of_the_rows(ready: Ready) -> None:
    run = ready([chat("a", "b"), chat("a", "c", "d", "e " * 9)], chats(1))
    summary, rows = prepare(run), train_rows(run)
    assert summary.tokens == rows.lengths.sum() and summary.trained_tokens == rows.trained.sum()
    assert summary.eval_tokens == train_rows(run, "eval").lengths.sum()
    assert [[most, count] for most, count in summary.lengths if count] == [[32, 1], [64, 1]]
    assert (summary.end_of_turn_rate, summary.bos_per_row, summary.steps) == (1.0, [1, 1], 3)
    sizes = [(run.data / name).stat().st_size for name in ("chat.jsonl", "eval.jsonl")]
    assert [source.pop("bytes") for source in summary.sources] == sizes
    assert summary.sources == [
        {"uri": URI, "format": "messages", "weight": 1.0, "rows": 2, "eval_rows": 0},
        {"uri": "s3://data/eval.jsonl", "format": "messages", "weight": 1.0, "rows": 0, "eval_rows": 1},
    ]
