"""The file in which a job's script finds how its run ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import ExitCode, NodeLost, node_rank_of, on_node
from job.outcome import EXIT_FILE, TERMINATION_LOG, tell_outcome

ROOT = Path(__file__).parents[2]


def verb(file: Path, *words: str, **environment: str) -> tuple[int, str]:
    env = {**os.environ, EXIT_FILE: str(file), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "job", *words]
    said = subprocess.run(command, env=env, cwd=file.parent, capture_output=True, text=True, timeout=120)
    return said.returncode, said.stderr


def test_code_node_and_reason_each_have_a_line(tmp_path: Path) -> None:
    file = tmp_path / "exit"
    tell_outcome(70, "rank 3\ndied", 2, {EXIT_FILE: str(file)})
    assert file.read_text() == "70\n2\nrank 3 died\n"
    tell_outcome(0, "done", environment={EXIT_FILE: str(file)})
    assert file.read_text() == "0\n0\ndone\n" and list(tmp_path.iterdir()) == [file]


def test_the_node_is_that_of_the_cause_however_it_was_wrapped() -> None:
    try:
        try:
            raise on_node(NodeLost("node 2 was lost"), 2)
        except NodeLost as error:
            raise NodeLost("that was it") from error
    except NodeLost as error:
        assert node_rank_of(error) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": "1", "SFT_JOB_LEADER": "a"},
        {"SFT_JOB_NODES": "two", "SLURM_NODEID": "1"},  # nothing is known of the job but this
    ],
)
def test_only_the_first_node_writes_it(tmp_path: Path, environment: dict[str, str]) -> None:
    file = tmp_path / "exit"
    tell_outcome(70, "why", environment={EXIT_FILE: str(file), **environment})
    assert not file.exists()
    first = {name: value.replace("1", "0") for name, value in environment.items()}
    tell_outcome(78, "why", environment={EXIT_FILE: str(file), **first})
    assert file.read_text() == "78\n0\nwhy\n"


def test_a_file_in_a_folder_that_takes_no_other_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "exit"
    file.write_text("old, and longer than what comes\n")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(16, "it is a mount")

    monkeypatch.setattr(Path, "replace", refuse)
    tell_outcome(75, "why", environment={EXIT_FILE: str(file)})
    assert file.read_text() == "75\n0\nwhy\n" and list(tmp_path.iterdir()) == [file]


def test_where_it_cannot_be_written_nothing_happens(tmp_path: Path) -> None:
    tell_outcome(75, "why", environment={EXIT_FILE: str(tmp_path / "no" / "exit")})
    tell_outcome(75, "why", environment={EXIT_FILE: "\0"})
    tell_outcome(75, "why \udcff", environment={EXIT_FILE: str(tmp_path / "exit")})
    assert (tmp_path / "exit").read_text().startswith("75\n")
    tell_outcome(75, "why", environment={})


def test_every_verb_writes_it_on_every_way_out(tmp_path: Path) -> None:
    file = tmp_path / "exit"
    assert verb(file, "schema")[0] == 0 and file.read_text() == "0\n0\ndone\n"
    assert verb(file, "--help")[0] == 0 and file.read_text() == "0\n0\ndone\n"
    assert verb(file, "run")[0] == 78 and file.read_text().startswith("78\n0\nMissing argument 'RUN'")
    code, said = verb(file, "run", "none.yaml")
    assert code == 78 and file.read_text() == f"78\n0\n{said.splitlines()[-1].removeprefix('sft-job: ')}\n"


def test_the_programs_of_the_ranks_leave_it_alone(tmp_path: Path) -> None:
    file = tmp_path / "exit"
    env = {**os.environ, EXIT_FILE: str(file), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "job.tiny", "model"], env=env, cwd=tmp_path, check=True, timeout=120)
    found = [path for path in (ROOT / "job").rglob("*.py") if "tell_outcome(" in path.read_text(encoding="utf-8")]
    assert not file.exists() and sorted(path.name for path in found) == ["cli.py", "outcome.py"]


def test_each_node_leaves_its_own_reason_where_a_pod_is_asked_for_it(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.touch()
    follower = {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": "1", "SFT_JOB_LEADER": "a", TERMINATION_LOG: str(file)}
    before = file.stat().st_ino
    tell_outcome(0, "done", environment=follower)
    assert file.read_text() == ""
    tell_outcome(69, "no GPU\nhere", environment=follower)
    assert file.read_text() == "no GPU here\n" and file.stat().st_ino == before
    tell_outcome(69, "why", environment={TERMINATION_LOG: "/nowhere/log"})


def test_what_cannot_be_printed_is_not_blamed_on_the_disk_of_a_run() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "job", "schema"]
        done = subprocess.run(words, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == ExitCode.HARDWARE
    assert done.stderr == "sft-job: what was to be printed could not be written: no space left on device\n"
