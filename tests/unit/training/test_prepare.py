"""Files go in; either whole prepared rows come out, or one line that names file, line and reason, and nothing else."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import pytest

from job.config import RunConfig, load_config
from job.prepare import prepare
from job.rundir import RunDir
from job.training.dataset import Summary
from job.training.preparation import held_out
from tests import preparing, standins
from tests.preparing import URI, chat, chats, failure, sources, train_rows

ROOT = Path(__file__).parents[3]
Ready = Callable[..., RunDir]


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return partial(preparing.ready, tmp_path)


# ---- the tutorials


@pytest.mark.parametrize("shape", ["messages", "conversation"])
def test_the_gemma_recipe_prepares_the_golden_row_from_either_shape(ready: Ready, tmp_path: Path, shape: str) -> None:
    data = recipe("gemma-one-sentence").to_dict()["data"]
    options = {name: value for name, value in data.items() if name != "train"}
    run = ready(standins.write_conversation(tmp_path / "one.jsonl", shape).read_bytes(), **options)
    summary, rows = prepare(run), train_rows(run)
    golden = json.loads((ROOT / "tests/golden/gemma-one-sentence.json").read_text(encoding="utf-8"))
    assert [part.tolist() for part in rows.row(0)] == [golden["input_ids"], golden["labels"]]
    assert summary == Summary.read(run.prepared / "summary.json")
    assert (summary.rows, summary.eval_rows, summary.chat, summary.end_of_turn_ids) == (1, 0, True, [107, 1])
    assert (summary.tokens, summary.trained_tokens, summary.longest_row) == (19, 5, 19)
    assert (summary.bos_per_row, summary.warnings, summary.formats) == ([1, 1], [], [shape])
    assert summary.chat_template is not None and "raise_exception" in summary.chat_template


def test_the_tinystories_recipe_prepares_the_golden_rows(ready: Ready) -> None:
    data = recipe("tinystories-backstories").to_dict()["data"]
    options = {name: value for name, value in data.items() if name != "train"}
    run = ready([standins.backstory(number) for number in range(30)], tokenizer="gpt-neo", **options)
    summary = prepare(run)
    golden = json.loads((ROOT / "tests/golden/tinystories-backstories.json").read_text(encoding="utf-8"))
    found = {}
    for rows in (train_rows(run), train_rows(run, "eval.arrow")):
        found |= {rows.source(index): rows.row(index) for index in range(len(rows))}
    for number, ids in enumerate(golden):
        assert [part.tolist() for part in found[f"chat.jsonl:{number + 1}"]] == [ids, ids]
    assert (summary.rows, summary.eval_rows, summary.chat, summary.truncated) == (24, 6, False, 10)
    assert "10 of 30 rows cut" in summary.warnings[0] and summary.longest_row == 128
    assert summary.chat_template is None


def recipe(name: str) -> RunConfig:
    with resources.as_file(resources.files("job.recipes").joinpath(f"{name}.yaml")) as path:
        return load_config(path)


# ---- the split


def test_a_share_is_split_off_by_seed_whole_and_without_overlap(ready: Ready) -> None:
    run = ready(chats(21), eval=0.2)
    prepare(run)
    train, held = sources(train_rows(run)), sources(train_rows(run, "eval.arrow"))
    assert len(held) == 5  # rounded up
    assert sorted(train + held) == sorted(f"chat.jsonl:{line}" for line in range(1, 22))
    assert train == sorted(train, key=lambda place: int(place.split(":")[1]))
    again = ready([chat("other", "words")] * 21, eval=0.2)
    prepare(again)
    assert sources(train_rows(again, "eval.arrow")) == held  # the rows' content has no part in it
    other = ready(chats(21), eval=0.2, seed=43)
    prepare(other)
    assert sources(train_rows(other, "eval.arrow")) != held


def test_the_split_of_the_backstories_holds_465_rows_and_never_changes() -> None:
    assert held_out(2322, 0.2, 42).sum() == 465
    assert held_out(10, 0.3, 42).nonzero()[0].tolist() == [4, 5, 9]


def test_evaluation_may_have_its_own_file(ready: Ready) -> None:
    run = ready(chats(3), chats(2))
    summary = prepare(run)
    assert (summary.rows, summary.eval_rows) == (3, 2)
    assert sources(train_rows(run, "eval.arrow")) == ["eval.jsonl:1", "eval.jsonl:2"]


def test_a_share_that_leaves_nothing_to_train_on_is_refused(ready: Ready) -> None:
    assert "data.eval: 0.5 of 1 rows leaves none to train on" in failure(ready(chats(1), eval=0.5))


def test_an_empty_evaluation_file_is_refused(ready: Ready) -> None:
    assert failure(ready(chats(2), [])).startswith("data.eval: no row to use")


# ---- the gates


def test_bad_rows_are_named_by_file_and_line_up_to_five_then_counted(ready: Ready) -> None:
    good = json.dumps(chat("a", "b")).encode()
    two_users = json.dumps({"messages": [{"role": "user", "content": "a"}] * 2 + chat("a", "b")["messages"]}).encode()
    lines = [good, b"{", b"", json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode(), two_users]
    message = failure(ready(b"\n".join([*lines, *[b"[]"] * 4])))
    parts = message.split("; s3://")
    assert parts[0].startswith(f"{URI}:2: not JSON") and len(parts) == 5
    assert parts[1].startswith("data/chat.jsonl:4: no assistant turn")
    assert parts[2].startswith("data/chat.jsonl:5: the chat template refuses it: Conversation roles must alternate")
    assert message.endswith("; and 2 more bad rows")


@pytest.mark.parametrize("data", [b"", b"\n \r\n"])
def test_an_empty_data_set_is_refused(ready: Ready, data: bytes) -> None:
    assert failure(ready(data)) == "data.train: no row to use: s3://data/chat.jsonl holds no line"


def test_missing_columns_are_named_with_those_that_are_there(ready: Ready) -> None:
    message = failure(ready([{"text": "a"}], columns={"prompt": "text", "completion": "target"}))
    assert message == f"{URI}:1: no column `target` (it has: text)"


def test_an_empty_completion_is_a_row_without_a_target(ready: Ready) -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}]
    assert failure(ready(rows, append_eos=False)).startswith(f"{URI}:2: no trained token")


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


LONG = [chat("a", "b"), chat("a", "b " * 40), chat("a " * 40, "b")]


def test_overlong_rows_are_dropped_and_counted(ready: Ready) -> None:
    run = ready(LONG, max_length=30)
    summary = prepare(run)
    assert (summary.rows, summary.dropped, sources(train_rows(run))) == (1, {"overlong": 2}, ["chat.jsonl:1"])
    assert summary.warnings == ["2 of 3 rows left out: longer than data.max_length 30 tokens (data.overlong: drop)"]


def test_overlong_rows_are_cut_and_those_left_without_a_target_dropped(ready: Ready) -> None:
    run = ready(LONG, max_length=30, overlong="truncate")
    summary = prepare(run)
    assert (summary.rows, summary.truncated, sum(summary.dropped.values())) == (2, 1, 1)
    assert train_rows(run).lengths.tolist()[1] == 30


def test_overlong_rows_are_refused_where_the_config_says_so(ready: Ready) -> None:
    message = failure(ready(LONG, max_length=30, overlong="error"))
    assert message.startswith(f"{URI}:2: ") and "more than data.max_length 30" in message


def test_when_every_row_is_dropped_the_reason_is_given(ready: Ready) -> None:
    assert "3 of 3 rows left out: longer than data.max_length 5" in failure(ready(LONG, max_length=5))


def test_a_folder_without_tokenizer_is_a_data_error(ready: Ready) -> None:
    run = ready(chats(1))
    shutil.rmtree(run.tokenizer)
    run.tokenizer.mkdir()
    assert failure(run).startswith("model.tokenizer: cannot be read")
