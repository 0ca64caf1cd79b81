"""What ranks write is read whole, in order and once, whenever the supervisor looks."""

import json
import math
import threading
from pathlib import Path

import pytest

from job.rundir import EventReader, EventWriter, Prepare, RunDir, Spec, write_atomically


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run").make()


# ---- events


def test_a_line_is_read_once_and_only_when_it_is_whole(run: RunDir) -> None:
    reader = EventReader(run.events)
    assert reader.read() == []
    text = json.dumps({"kind": "log", "message": "学会了\n\r"}, ensure_ascii=False).encode() + b"\n"
    with run.events.open("ab", buffering=0) as file:
        for at in range(len(text) - 1):  # in the middle of a character too
            file.write(text[at : at + 1])
            assert reader.read() == []
        file.write(text[-1:] + text + text[:5])
        assert [event["message"] for event in reader.read()] == ["学会了\n\r"] * 2
        assert reader.read() == []
        file.write(text[5:])
        assert len(reader.read()) == 1


def test_what_the_writer_writes_the_reader_reads_at_once(run: RunDir) -> None:
    writer, reader = EventWriter(run.events), EventReader(run.events)
    writer.write("step", step=1, loss=float("nan"), text="微\u2028调")
    (event,) = reader.read()
    assert (event["kind"], event["step"], event["text"]) == ("step", 1, "微\u2028调") and math.isnan(event["loss"])
    writer.close()


def test_lines_of_several_threads_never_mix(run: RunDir) -> None:
    writer, reader = EventWriter(run.events), EventReader(run.events)
    long = "x" * 30_000  # more than any buffer
    threads = [
        threading.Thread(target=lambda n=n: [writer.write("log", thread=n, count=c, text=long) for c in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    found = []
    while any(thread.is_alive() for thread in threads):
        found += reader.read()
    found += reader.read()
    assert len(found) == 80
    for number in range(4):
        assert [event["count"] for event in found if event["thread"] == number] == list(range(20))


# ---- snapshots, the stop flag, errors


def test_only_whole_snapshots_are_seen_in_the_order_of_their_steps(run: RunDir) -> None:
    for step in (20, 100_000_000, 3):
        run.snapshot(step).mkdir()
    (run.snapshots / ".step-00000030").mkdir()
    assert run.whole_snapshots() == [(step, run.snapshot(step)) for step in (3, 20, 100_000_000)]


def test_a_stop_is_seen_with_its_reason(run: RunDir) -> None:
    assert run.stop_requested() is None
    run.request_stop("SIGTERM")
    assert run.stop_requested() == "SIGTERM"


def test_an_error_is_read_as_it_was_left(run: RunDir) -> None:
    assert run.read_error(0) is None
    run.write_error(0, 65, "行 7: wrong")
    assert run.read_error(0) == (65, "行 7: wrong")


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, over = tmp_path / "file", threading.Event()
    contents = {letter * 1_000_000 for letter in "ab"}
    write_atomically(path, "a" * 1_000_000)

    def write() -> None:
        while not over.is_set():
            for content in contents:
                write_atomically(path, content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(path.read_text() in contents for _ in range(100))
    finally:
        over.set()
        writer.join()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_is_asked_of_the_programs_comes_back_equal(run: RunDir) -> None:
    spec = Spec({"run": "r"}, 3, "ab", "/base", 7, [{"step": 5, "eval_loss": 1.5}])
    spec.write(run)
    assert Spec.read(run) == spec
    asked = Prepare({"run": "r"}, [{"uri": "u", "path": "/p"}], [])
    asked.write(run)
    assert Prepare.read(run) == asked
