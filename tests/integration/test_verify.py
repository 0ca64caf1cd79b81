"""`sft-job verify` of a real run: whole, damaged in each of its parts, loaded; and the run folder is as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from job.storage.checkpoints import sha256
from job.storage.store import open_store
from tests import standins
from tests.harness import Job, finish
from tests.refusals import Place, contents, right_fields
from tests.servers import Bucket

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, and a run on it with three commits and a result."""
    root = tmp_path_factory.mktemp("finished")
    standins.gemma(root / "base")
    standins.write_conversation(root / "chat.jsonl")
    place = Place(root, right_fields(root, root / "run"))
    finish(place.arguments({"train.max_steps": 6, "checkpoint.every": "2 steps"}), place.home)
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


def verify(run: Path | str, home: Path, code: int = 0, *more: str, env: dict[str, str] | None = None) -> Job:
    """Nothing may be changed, and nothing may be left on this machine."""
    before = contents(Path(run)) if isinstance(run, Path) else None
    job = finish(["verify", str(run), *more], home, env or {}, code)
    assert before is None or contents(Path(run)) == before
    assert [path.name for path in home.iterdir() if path.is_dir() and path.name != "cache"] == []
    assert "Traceback" not in job.said()
    return job


def newest(run: Path) -> Path:
    return max((run / "commits").glob("*.json"))


def recorded(record: Path, change: Callable[[Path], object]) -> None:
    """Change a record's files, and make it agree by size and hash with what they are then."""
    found = json.loads(record.read_text(encoding="utf-8"))
    folder = record.parents[1] / found["folder"]
    change(folder)
    found["files"] = [
        {"name": path.name, "size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())
    ]
    record.write_text(json.dumps(found), encoding="utf-8")


def test_a_finished_run_verifies_with_a_line_for_each_record_and_a_verdict(run: Path, tmp_path: Path) -> None:
    job = verify(run, tmp_path / "home")
    commits = len(list((run / "commits").glob("*.json")))
    lines = job.said().splitlines()
    assert commits >= 1 and len(lines) == commits + 4, job.said()
    assert all(line.split("(")[0].rstrip().endswith("ok") for line in lines[:-1])
    assert lines[-1].startswith("ok: ") and "and the result verified" in lines[-1]
    assert job.stdout() == ""


def test_its_config_may_stand_for_it(finished: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"run: {finished}/run\nmodel: {{base: b}}\ndata: {{train: [d.jsonl]}}\nlora: {{}}\n", encoding="utf-8"
    )
    assert "verified" in verify(str(config), tmp_path / "home").said()


def test_a_flipped_bit_is_65_and_named_in_the_last_line_and_in_json(run: Path, tmp_path: Path) -> None:
    folder = run / json.loads(newest(run).read_text(encoding="utf-8"))["folder"]
    for path in (folder / "trainable.safetensors", run / "final" / "0001" / "adapter_model.safetensors"):
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    last = verify(run, tmp_path / "home", 65).said().splitlines()[-1]
    assert last.startswith("sft-job: ")
    for words in (f"commits/{newest(run).name}: trainable.safetensors", "final/result.json: adapter_model.safetensors"):
        assert words in last
    job = verify(run, tmp_path / "home", 65, "--json")
    report = json.loads(job.stdout())
    assert report["ok"] is False and {one["kind"] for one in report["checked"] if one["problems"]} == {
        "commit",
        "result",
    }
    assert job.said() == f"sft-job: {report['verdict']}\n"


def test_a_folder_that_is_no_run_is_78_and_not_made(tmp_path: Path) -> None:
    assert "is no run folder" in verify(str(tmp_path / "nothing"), tmp_path / "home", 78).said()
    assert not (tmp_path / "nothing").exists()


def test_the_same_run_on_s3_verifies_and_a_cut_file_is_found(s3: Bucket, finished: Path, tmp_path: Path) -> None:
    store = open_store(f"{s3.uri}/run")
    for path in sorted((finished / "run").rglob("*")):
        if path.is_file():
            store.upload(path, path.relative_to(finished / "run").as_posix())
    before = store.list("")
    assert "loaded" in verify(store.uri, tmp_path / "home", 0, "--deep", env=s3.env).said()
    assert store.list("") == before
    (state,) = [entry.key for entry in before if entry.key.endswith("state.json")][-1:]
    store.put(state, store.get(state)[:-1])
    assert "state.json: has" in verify(store.uri, tmp_path / "home", 65, env=s3.env).said().splitlines()[-1]


def test_deep_loads_every_commit_and_the_result(run: Path, tmp_path: Path) -> None:
    assert "verified, and loaded" in verify(run, tmp_path / "home", 0, "--deep").said().splitlines()[-1]


def not_finite(folder: Path) -> None:
    tensors = load_file(folder / "optimizer.safetensors")
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, folder / "optimizer.safetensors")


def other_state(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    (folder / "state.json").write_text(json.dumps({**state, "step": 99}), encoding="utf-8")


@pytest.mark.parametrize(("change", "words"), [(not_finite, "not finite"), (other_state, "is of step 99")])
def test_deep_finds_what_hashes_cannot(run: Path, tmp_path: Path, change: Callable[[Path], object], words: str) -> None:
    recorded(newest(run), change)
    assert "verified" in verify(run, tmp_path / "home").said()
    last = verify(run, tmp_path / "home", 65, "--deep").said().splitlines()[-1]
    assert words in last and newest(run).name in last


def test_deep_finds_a_result_that_is_no_model(run: Path, tmp_path: Path) -> None:
    recorded(
        run / "final" / "result.json",
        lambda folder: (folder / "adapter_config.json").write_text('{"peft_type": "NONE"}', encoding="utf-8"),
    )
    last = verify(run, tmp_path / "home", 65, "--deep").said().splitlines()[-1]
    assert "final/result.json: the tuned model cannot be loaded" in last


def test_a_planted_pickle_is_refused_and_never_opened(run: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    harm = f"cposix\nsystem\n(S'touch {opened}'\ntR.".encode()
    recorded(newest(run), lambda folder: (folder / "optimizer.pt").write_bytes(harm))
    recorded(run / "final" / "result.json", lambda folder: (folder / "adapter_model.bin").write_bytes(harm))
    for more in ((), ("--deep",)):
        last = verify(run, tmp_path / "home", 65, *more).said().splitlines()[-1]
        assert "optimizer.pt: a pickle" in last and "adapter_model.bin: a pickle" in last
    assert not opened.exists()


def test_a_pickle_beside_the_result_that_no_record_names_is_out_of_reach(run: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    final = run / "final" / "0001"
    recorded(run / "final" / "result.json", lambda folder: (folder / "adapter_model.safetensors").unlink())
    (final / "adapter_model.bin").write_bytes(f"cposix\nsystem\n(S'touch {opened}'\ntR.".encode())
    job = verify(run, tmp_path / "home", 65, "--deep")
    assert "no safetensors" in job.said().splitlines()[-1] and "1 file, " in job.said()
    assert not opened.exists()
