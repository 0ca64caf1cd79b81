"""Each bad input: one clear line, the right exit code, nothing half-written, and the run folder as it was."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from job.errors import ExitCode
from job.storage.store import open_store
from tests import standins
from tests.harness import ROOT, Job, finish, sets
from tests.servers import Bucket, Fault, FaultyProxy

pytestmark = pytest.mark.slow

CONFIG = """
run: RUN
model: {base: BASE}
data: {train: [DATA], max_length: 64}
lora: {r: 8, alpha: 16}
train: {max_steps: 2, global_batch_size: 1}
parallel: {device: cpu}
"""


@dataclass
class Place:
    """A config whose every part is right, to be run with one part made wrong."""

    root: Path
    fields: dict[str, Any]
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.root / "home"

    def arguments(self, wrong: Mapping[str, Any]) -> list[str]:
        file = self.root / "run.yaml"
        file.write_text(CONFIG, encoding="utf-8")
        return ["run", str(file), *sets({**self.fields, **wrong})]

    def refused(self, code: ExitCode, *words: str, more: tuple[str, ...] = (), **wrong: Any) -> list[str]:
        """Run it; expect `code`, a last line with all `words`, and every folder as before. Returns stderr's lines."""
        fields = {name.replace("__", "."): value for name, value in wrong.items()}
        store = open_store({**self.fields, **fields}["run"])
        local = store.local_path("run.json")
        before = contents(local.parent) if local is not None else None
        job = Job([*self.arguments(fields), *more], self.home, self.extra)
        assert job.ended() == code, job.said()
        said = job.said().splitlines()
        assert "Traceback" not in job.said(), job.said()
        assert [line for line in said if line.startswith("sft-job: ")] == said[-1:], job.said()
        missing = [word for word in words if word not in said[-1]]
        assert not missing, f"{missing} not in {said[-1]}"
        assert job.stdout() == ""
        assert local is None or contents(local.parent) == before
        assert left_in(self.home) == []
        return said


def contents(folder: Path) -> dict[str, str] | None:
    """Every file below `folder`, hidden ones too, with its hash; None where there is no such folder."""
    if not folder.exists():
        return None
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_in(home: Path) -> list[str]:
    """Attempts' local folders, and half-pulled files in the cache."""
    folders = [path for path in (home / "runs").glob("*") if path.is_dir()]
    return [str(path) for path in [*folders, *home.rglob("*.partial")]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a conversation, and a folder `begun` of an unfinished run."""
    root = tmp_path_factory.mktemp("made")
    standins.gemma(root / "base")
    standins.write_conversation(root / "chat.jsonl")
    begun = Place(root, inputs(root, root / "begun"))
    finish(begun.arguments({}), begun.home)
    shutil.rmtree(root / "begun" / "final")
    return root


def inputs(made: Path, run: Path) -> dict[str, Any]:
    return {"run": str(run), "model.base": str(made / "base"), "data.train": [str(made / "chat.jsonl")]}


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Place:
    return Place(tmp_path, inputs(made, tmp_path / "never"))


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Place:
    """On a copy of the run that has begun."""
    shutil.copytree(made / "begun", tmp_path / "begun")
    return Place(tmp_path, inputs(made, tmp_path / "begun"))


@pytest.fixture
def on_s3(made: Path, s3: Bucket, tmp_path: Path) -> Place:
    """Everything in one bucket."""
    store = open_store(s3.uri)
    for file in sorted((made / "base").iterdir()):
        store.upload(file, f"base/{file.name}")
    store.upload(made / "chat.jsonl", "chat.jsonl")
    fields = {"run": f"{s3.uri}/never", "model.base": f"{s3.uri}/base", "data.train": [f"{s3.uri}/chat.jsonl"]}
    return Place(tmp_path, fields, dict(s3.env))


# ---- the command line and the config


def test_an_unknown_option(place: Place) -> None:
    place.refused(ExitCode.CONFIG, "--resume", "--help", more=("--resume",))


def test_an_unknown_field_gets_a_suggestion(place: Place) -> None:
    place.refused(ExitCode.CONFIG, "train.lerning_rate", "learning_rate", train__lerning_rate=1e-4)


def test_a_wrong_value_names_its_field(place: Place) -> None:
    place.refused(ExitCode.CONFIG, "train.epochs", "'many'", train__epochs="many")


def test_all_mistakes_are_told_at_once(place: Place) -> None:
    (place.root / "run.yaml").write_text(CONFIG.replace("lora:", "lora_:"), encoding="utf-8")
    job = Job(["run", str(place.root / "run.yaml"), "--set", "train.epochs=many"], place.home)
    assert job.ended() == ExitCode.CONFIG
    first, *mistakes = job.said().splitlines()
    assert first.startswith("sft-job: ") and "mistakes" in first and len(mistakes) >= 2
    assert any("run.yaml:5" in line and "lora_" in line for line in mistakes)
    assert any("train.epochs" in line for line in mistakes)


def test_a_config_that_is_not_there(place: Place) -> None:
    job = finish(["run", str(place.root / "none.yaml")], place.home, code=ExitCode.CONFIG)
    (line,) = job.said().splitlines()
    assert line.startswith("sft-job: ") and "none.yaml" in line


def test_another_runs_folder_is_told_field_by_field(begun: Place) -> None:
    words = ("is another run", "lora.r: 9 here, 8 in run.json", "train.seed: 7 here, 42 in run.json", "new folder")
    begun.refused(ExitCode.CONFIG, *words, lora__r=9, train__seed=7)


def test_lora_targets_that_match_nothing(place: Place) -> None:
    place.refused(ExitCode.CONFIG, "lora.target_modules", "q_porj", "q_proj", lora__target_modules=["q_porj"])


def test_a_lora_pattern_that_matches_nothing_leaves_no_checkpoint(place: Place) -> None:
    """Only the rank knows the names that a pattern is held against: the attempt is claimed by then, and says its end."""
    job = finish(place.arguments({"lora.target_modules": ".*nothing_like_it"}), place.home, code=ExitCode.CONFIG)
    last = job.said().splitlines()[-1]
    assert last.startswith("sft-job: lora: ") and "nothing_like_it" in last and "Traceback" not in job.said()
    run = Path(place.fields["run"])
    assert json.loads((run / "attempts" / "0001-end.json").read_text())["code"] == ExitCode.CONFIG
    assert not (run / "checkpoints").exists() and not (run / "commits").exists() and left_in(place.home) == []


def without(module: str, folder: Path) -> dict[str, str]:
    """The environment of an interpreter in which `module` is not installed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "class Without(PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, path=None, target=None):\n"
        f"        return None if name.partition('.')[0] == {module!r} else super().find_spec(name, path, target)\n"
        "sys.meta_path[sys.meta_path.index(PathFinder)] = Without\n",
        encoding="utf-8",
    )
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def test_a_tracker_that_is_not_installed(place: Place, tmp_path: Path) -> None:
    place.extra = without("wandb", tmp_path / "site")
    place.refused(ExitCode.CONFIG, "wandb", "pip install", track=["wandb"])


def test_an_optimizer_that_is_not_installed(place: Place, begun: Place, tmp_path: Path) -> None:
    place.extra = without("bitsandbytes", tmp_path / "site")
    place.refused(ExitCode.CONFIG, "adamw_8bit", "pip install", train__optim="adamw_8bit")


# ---- hardware


def test_gpus_that_are_asked_for_or_granted_and_not_there(begun: Place) -> None:
    if list(Path("/dev").glob("nvidia[0-9]")):
        pytest.skip("this machine has a GPU")
    begun.refused(ExitCode.HARDWARE, "parallel.device is cuda", "parallel.device: cpu", parallel__device="cuda")
    begun.extra = {"SLURM_GPUS_ON_NODE": "2"}
    begun.refused(ExitCode.HARDWARE, "the scheduler granted GPUs", "parallel.device: cpu", parallel__device="auto")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Mounts filesystems of a given size."""
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("only root can mount a small filesystem to fill up")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_room_for_the_weights_in_the_home(on_s3: Place, small_disk: Callable[[str, str], Path]) -> None:
    small_disk("home", "100M")  # room for a run, not for pulling
    on_s3.refused(ExitCode.HARDWARE, "home", "free some")
    assert open_store(on_s3.fields["run"]).list("") == []


@pytest.mark.parametrize("size", ["8k", "64k", "20M"])
def test_no_room_for_a_run_in_the_home(begun: Place, small_disk: Callable[[str, str], Path], size: str) -> None:
    home = small_disk("home", size)
    (home / "filling").write_bytes(bytes(4096))
    begun.refused(ExitCode.HARDWARE, "home", "SFT_JOB_HOME")


def test_no_room_in_the_run_folder(place: Place, small_disk: Callable[[str, str], Path]) -> None:
    disk = small_disk("disk", "8k")
    (disk / "filling").write_bytes(bytes(8 * 1024))
    place.refused(ExitCode.HARDWARE, str(disk), "no space", run=str(disk))


def test_no_room_for_a_checkpoint_in_the_run_folder(place: Place, small_disk: Callable[[str, str], Path]) -> None:
    disk = small_disk("disk", "200k")  # one is of about 400 KB
    job = finish(place.arguments({"run": str(disk)}), place.home, code=ExitCode.HARDWARE)
    assert "Traceback" not in job.said() and "space" in job.said().splitlines()[-1]
    assert not list(disk.rglob("commits/*")) and not list(disk.rglob(".tmp-*")) and left_in(place.home) == []


# ---- storage


def test_a_bucket_that_is_not_there(on_s3: Place) -> None:
    for name in ("run", "model.base"):
        on_s3.refused(ExitCode.STORAGE, "bucket nowhere does not exist", **{name: "s3://nowhere/x"})
    on_s3.refused(ExitCode.STORAGE, "bucket nowhere does not exist", data__train=["s3://nowhere/x.jsonl"])
    assert open_store(on_s3.fields["run"]).list("") == []


def test_a_key_that_is_not_there(on_s3: Place, s3: Bucket) -> None:
    on_s3.refused(ExitCode.DATA, f"{s3.uri}/none.jsonl", "data.train", data__train=[f"{s3.uri}/none.jsonl"])
    on_s3.refused(ExitCode.DATA, f"{s3.uri}/none", "model.base", model__base=f"{s3.uri}/none")
    assert open_store(on_s3.fields["run"]).list("") == []


@pytest.mark.parametrize("refused", ["/base/config.json", "/chat.jsonl", "/never/", "(PUT|POST) .*/never/"])
def test_credentials_that_are_refused(on_s3: Place, faulty: FaultyProxy, refused: str) -> None:
    faulty.faults.append(Fault("status", match=refused, status=403, code="AccessDenied"))
    on_s3.extra["AWS_ENDPOINT_URL"] = faulty.endpoint
    on_s3.refused(ExitCode.STORAGE, "refused", "credentials", refused.split("/")[1])
    faulty.faults.clear()
    assert open_store(on_s3.fields["run"]).list("") == []


def test_a_damaged_run_json(begun: Place) -> None:
    record = begun.root / "begun" / "run.json"
    record.write_bytes(record.read_bytes()[:-20])
    begun.refused(ExitCode.DATA, str(record), "damaged")


# ---- the base model


def test_a_base_that_is_no_model(place: Place, begun: Place, made: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(made / "base", tmp_path / name))

    place.refused(ExitCode.DATA, "model.base", "there is no such folder", model__base=str(tmp_path / "none"))
    without_config = broken("without-config")
    (without_config / "config.json").unlink()
    place.refused(ExitCode.DATA, str(without_config), "config.json is missing", model__base=str(without_config))
    without_weights = broken("without-weights")
    (without_weights / "model.safetensors").unlink()
    place.refused(ExitCode.DATA, str(without_weights), "no weights", model__base=str(without_weights))
    truncated = broken("truncated")
    os.truncate(truncated / "model.safetensors", 100_000)
    place.refused(ExitCode.DATA, f"{truncated}/model.safetensors", "truncated", model__base=str(truncated))
    no_json = broken("no-json")
    (no_json / "config.json").write_text("<html>", encoding="utf-8")
    place.refused(ExitCode.DATA, f"{no_json}/config.json", "not JSON", model__base=str(no_json))


# ---- the data


def chat(*turns: tuple[str, str]) -> str:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}, ensure_ascii=False)


GOOD = chat(("user", "a"), ("assistant", "b"))
BAD_DATA = {
    "empty": ("", "{file}", "no row"),
    "no-json": (f"{GOOD}\nhello\n", "{file}:2", "not JSON"),
    "no-assistant": (f"{GOOD}\n{GOOD}\n{chat(('user', 'a'))}\n", "{file}:3", "no assistant turn"),
    "two-users": (
        f"{GOOD}\n{chat(('user', 'a'), ('user', 'b'), ('assistant', 'c'))}\n",
        "{file}:2",
        "the chat template refuses it",
        "roles: user, user, assistant",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_teach_name_file_line_and_reason(place: Place, name: str) -> None:
    text, *words = BAD_DATA[name]
    file = place.root / f"{name}.jsonl"
    file.write_text(text, encoding="utf-8")
    place.refused(ExitCode.DATA, *(word.format(file=file) for word in words), data__train=[str(file)])


def test_a_data_file_that_is_not_there(place: Place) -> None:
    missing = str(place.root / "none.jsonl")
    place.refused(ExitCode.DATA, "data.train", missing, "no such file", data__train=[missing])
