"""Each bad config, base model and data set: one clear line, the right exit code, and the run folder as it was."""

import json
import os
import shutil
from pathlib import Path

import pytest

from job.errors import ExitCode
from tests.harness import ROOT, Job, finish
from tests.refusals import CONFIG, Place, left_in

pytestmark = pytest.mark.slow


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
    """Only the rank knows the names that it is held against: the attempt is claimed by then, and says its end."""
    job = finish(place.arguments({"lora.target_modules": ".*nothing_like_it"}), place.home, code=ExitCode.CONFIG)
    last = job.said().splitlines()[-1]
    assert last.startswith("sft-job: lora: ") and "nothing_like_it" in last and "Traceback" not in job.said()
    run = Path(place.fields["run"])
    assert json.loads((run / "attempts" / "0001-end.json").read_text())["code"] == ExitCode.CONFIG
    assert not (run / "checkpoints").exists() and left_in(place.home) == []
    assert [path.name for path in (run / "commits").iterdir()] == ["probe"]


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


def test_an_optimizer_that_is_not_installed(place: Place, tmp_path: Path) -> None:
    place.extra = without("bitsandbytes", tmp_path / "site")
    place.refused(ExitCode.CONFIG, "adamw_8bit", "pip install", train__optim="adamw_8bit")


# ---- the base model


def test_a_base_that_is_no_model(place: Place, right_inputs: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(right_inputs / "base", tmp_path / name))

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
