"""Preparation as the program that a supervisor starts: its name for the result, its end, and what it leaves behind."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.errors import DataError, Stopped
from job.prepare import ALONE_BYTES, prepare
from job.rundir import EventReader, Prepare, RunDir
from tests import preparing
from tests.preparing import URI, chat, chats, failure, left, train_rows

ROOT = Path(__file__).parents[3]
Ready = Callable[..., RunDir]


@pytest.fixture
def ready(tmp_path: Path) -> Ready:
    return partial(preparing.ready, tmp_path)


# ---- the fingerprint


def test_the_fingerprint_follows_content_options_and_tokenizer_but_no_names(ready: Ready) -> None:
    same = [ready(chats(4)), ready(chats(4)), ready(chats(4), name="other.jsonl")]
    assert len({prepare(run).fingerprint for run in same}) == 1
    changed = ready(chats(4))
    path = changed.tokenizer / "tokenizer_config.json"
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    others = [
        changed, ready(chats(4)[::-1]), ready(chats(4), max_length=512), ready(chats(4), loss="last"),
        ready(chats(4), template="gemma"), ready(chats(4), eval=0.5), ready(chats(4), eval=0.5, seed=1),
        ready(chats(4), chats(1)),
    ]  # fmt: skip
    assert len({prepare(run).fingerprint for run in [*same, *others]}) == 1 + len(others)


# ---- the program


def start(run: RunDir, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-X", "importtime", "-m", "job.prepare", str(run.path)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_program_prepares_says_how_far_it_is_and_never_imports_torch(ready: Ready) -> None:
    run = ready(chats(3))
    done = start(run, SFT_JOB_PARENT_PID=str(os.getpid()))
    assert done.returncode == 0, done.stderr
    assert left(run) == ["prepared"] and len(train_rows(run)) == 3
    assert EventReader(run.events).read() == [{"kind": "preparing", "done": 3, "total": 3}]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "transformers" in imported
    assert not imported & {"torch", "datasets", "pandas", "trl", "boto3"}


def test_the_program_leaves_its_cause_and_exit_code(ready: Ready) -> None:
    run = ready(b"{\n")
    assert start(run).returncode == 65
    code, message = run.read_error(0) or (0, "")
    assert (code, message.partition(": ")[0]) == (65, f"{URI}:1")
    assert left(run) == ["error-0.json"]


def test_an_error_nobody_foresaw_leaves_with_70_and_its_name(ready: Ready) -> None:
    run = ready(chats(1))
    run.request.write_text("{", encoding="utf-8")
    assert start(run).returncode == 70
    assert (run.read_error(0) or (0, ""))[1].startswith("JSONDecodeError: ")


def test_a_program_whose_supervisor_is_gone_does_nothing(ready: Ready) -> None:
    run = ready(chats(1))
    assert start(run, SFT_JOB_PARENT_PID="1").returncode != 0
    assert left(run) == []


def test_the_prepared_files_are_the_same_for_any_number_of_workers(ready: Ready) -> None:
    rows = [chat(f"q {n}", f"a {n % 1900} " + "b " * (n % 50)) for n in range(2500)]
    rows[2100] = chat("thinking", "<think>a</think>b")
    kept = []
    for workers in (0, 2, 3):
        run = ready(rows, chats(30), max_length=70, overlong="split")
        prepare(run, workers)
        kept.append({path.name: path.read_bytes() for path in run.prepared.iterdir()})
    assert kept[0] == kept[1] == kept[2]
    assert sorted(kept[0]) == ["eval-00000.arrow", "summary.json", "train-00000.arrow"]


def test_rows_of_a_table_and_of_a_packed_file_reach_the_workers_too(ready: Ready, tmp_path: Path) -> None:
    rows = [chat(f"q {n}", f"a {n}") for n in range(2500)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet", row_group_size=600)
    files = {
        "a.parquet": (tmp_path / "rows.parquet").read_bytes(),
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl": lines,
    }
    kept = []
    for name, content in files.items():
        run = ready(content, name=name)
        prepare(run, workers=3)
        kept.append([train_rows(run).row(index)[0].tolist() for index in range(len(train_rows(run)))])
    assert len(kept[0]) == 2500 and kept[0] == kept[1] == kept[2]


def test_the_verdict_is_the_same_for_any_number_of_workers(ready: Ready) -> None:
    rows = [chat(f"q {n}", "" if n % 300 == 7 else f"a {n}") for n in range(2500)]
    messages = set()
    for workers in (0, 2, 3):
        with pytest.raises(DataError) as caught:
            prepare(ready(rows), workers)
        messages.add(str(caught.value))
    assert len(messages) == 1 and "and 4 more bad rows" in messages.pop()


def test_many_rows_are_prepared_by_several_processes_without_torch(ready: Ready) -> None:
    run = ready([chat(f"q {n}", "b " * 600) for n in range(1000)], max_length=2000)
    assert run.data.joinpath("chat.jsonl").stat().st_size > ALONE_BYTES
    done = start(run)
    assert done.returncode == 0, done.stderr
    assert len(train_rows(run)) == 1000 and left(run) == ["prepared"]
    assert "fork" not in done.stderr.replace("multiprocessing.popen_fork", ""), "the tokenizer complains of the fork"


def test_a_stop_request_ends_it_and_leaves_nothing(ready: Ready) -> None:
    run = ready(chats(2500))
    run.request_stop("SIGTERM")
    with pytest.raises(Stopped, match="SIGTERM"):
        prepare(run)
    run.stop_flag.unlink()
    assert left(run) == []


def test_what_an_earlier_preparation_left_is_replaced(ready: Ready) -> None:
    run = ready(chats(2))
    prepare(run)
    (run.prepared / "stray").touch()
    prepare(run)
    assert sorted(entry.name for entry in run.prepared.iterdir()) == ["summary.json", "train-00000.arrow"]


def test_a_file_that_cannot_be_read_is_named_as_the_user_named_it(ready: Ready) -> None:
    run = ready(chats(1))
    source = Prepare.read(run)
    Prepare(source.config, [{**source.train[0], "sha256": "0" * 64}], []).write(run)
    run.data.joinpath("chat.jsonl").unlink()
    assert failure(run) == f"{URI}: cannot be read (No such file or directory)"
