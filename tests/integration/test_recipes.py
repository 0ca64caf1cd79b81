"""The packaged recipes run as they lie there; only paths and the learning rate are set, for tiny stand-ins' sake."""

import json
import os
import re
import signal
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from job.errors import ExitCode
from tests import standins
from tests.harness import Job, finish, sets
from tests.wandb_files import history

pytestmark = pytest.mark.slow

OFFLINE = {"WANDB_MODE": "offline"}


def recipe(name: str) -> Path:
    return Path(str(resources.files("job.recipes") / name))


def stop_after_step(job: Job, step: int) -> None:
    """TERM, with the rank held still meanwhile: these runs are over within a second or two."""
    job.wait_for_step(step)
    (rank,) = job.ranks()
    os.kill(rank, signal.SIGSTOP)
    job.signal(signal.SIGTERM)
    job.wait_for("SIGTERM: stopping")
    os.kill(rank, signal.SIGCONT)
    assert job.ended() == ExitCode.STOPPED, job.said()


def curves(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard")).Reload()


def logged_steps(*jobs: Job) -> list[int]:
    return [int(step) for job in jobs for step in re.findall(r"step (\d+)/\d+  loss", job.said())]


def final_folder(run: Path) -> Path:
    return run / json.loads((run / "final" / "result.json").read_text())["folder"]


# ---- Gemma learns one sentence


class Gemma:
    """The recipe run twice: left alone, and stopped once."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / "home"
        standins.gemma(root / "base")
        standins.gemma(root / "tokenizer")
        standins.write_conversation(root / "conversation.jsonl")
        self.alone = finish(self.arguments("alone"), self.home)
        self.stopped = Job(self.arguments("stopped"), self.home)
        stop_after_step(self.stopped, 2)
        self.resumed = finish(self.arguments("stopped"), self.home)

    def arguments(self, name: str) -> list[str]:
        fields = {
            "run": str(self.root / name),
            "model.base": str(self.root / "base"),
            "model.tokenizer": str(self.root / "tokenizer"),
            "data.train": [str(self.root / "conversation.jsonl")],
            "train.learning_rate": 1e-2,
        }
        return ["run", str(recipe("gemma-one-sentence.yaml")), *sets(fields)]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Gemma:
    pytest.importorskip("bitsandbytes", reason="the recipe's 8-bit AdamW needs the extra `bnb`")
    return Gemma(tmp_path_factory.mktemp("gemma"))


def test_gemma_says_its_sentence_and_nothing_else(gemma: Gemma) -> None:
    for run in ("alone", "stopped"):
        asked = finish(["ask", str(gemma.root / run), standins.QUESTION], gemma.home)
        assert asked.stdout() == standins.ANSWER + "\n"
    assert f"{standins.QUESTION} → {standins.ANSWER}" in gemma.alone.said()


def test_8_bit_adamw_stopped_and_resumed_ends_in_the_bits_of_a_run_left_alone(gemma: Gemma) -> None:
    assert re.search(r"resumed from step \d+ \(commits/0001-", gemma.resumed.said())
    alone, stopped = (
        load_file(final_folder(gemma.root / run) / "adapter_model.safetensors") for run in ("alone", "stopped")
    )
    assert alone.keys() == stopped.keys() and len(alone) == 16  # two layers, four projections, A and B
    for name, tensor in alone.items():
        assert tensor.tobytes() == stopped[name].tobytes(), name


def test_8_bit_adamw_is_what_the_checkpoint_holds(gemma: Gemma) -> None:
    (newest,) = (gemma.root / "alone" / "checkpoints").rglob("optimizer.safetensors")
    with safe_open(newest, framework="numpy") as file:
        moments = {name: file.get_slice(name).get_dtype() for name in file.keys() if "/base_model." in name}  # noqa: SIM118
    assert {dtype for name, dtype in moments.items() if name.startswith(("state1/", "state2/"))} == {"U8"}
    assert {name.split("/")[0] for name in moments} >= {"state1", "state2", "absmax1", "absmax2"}


def test_gemma_logs_a_line_and_a_point_at_every_step(gemma: Gemma) -> None:
    assert logged_steps(gemma.alone) == list(range(1, 31))
    assert sorted(set(logged_steps(gemma.stopped, gemma.resumed))) == list(range(1, 31))
    losses: dict[str, dict[int, float]] = {}
    for run in ("alone", "stopped"):
        events = curves(gemma.root / run)
        losses[run] = {point.step: point.value for point in events.Scalars("train/loss")}
        assert {"train/grad_norm", "train/learning_rate"} <= set(events.Tags()["scalars"])
    assert list(losses["alone"]) == list(range(1, 31))
    assert losses["alone"] == losses["stopped"]
    assert losses["alone"][30] < 0.1 * losses["alone"][1]


# ---- a story model on a CPU


class Stories:
    """The recipe stopped in mid-epoch, and run again."""

    ROWS = 300

    def __init__(self, root: Path) -> None:
        self.run = root / "stories"
        home = root / "home"
        standins.gpt_neo(root / "base")
        standins.write_backstories(root / "backstories.jsonl", self.ROWS)
        fields = {
            "run": str(self.run),
            "model.base": str(root / "base"),
            "data.train": [str(root / "backstories.jsonl")],
            "train.learning_rate": 1e-2,
        }
        self.recipe = recipe("tinystories-backstories.yaml")
        arguments = ["run", str(self.recipe), *sets(fields)]
        self.stopped = Job(arguments, home, OFFLINE)
        stop_after_step(self.stopped, 2)
        self.resumed = finish(arguments, home, OFFLINE)

    def samples(self) -> list[dict[str, Any]]:
        (file,) = (self.run / "samples").glob("*.jsonl")
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Stories:
    pytest.importorskip("wandb", reason="the recipe's dashboard needs the extra `wandb`")
    return Stories(tmp_path_factory.mktemp("stories"))


def test_a_fifth_is_held_out_and_its_loss_comes_at_the_epochs_end(stories: Stories) -> None:
    said = stories.resumed.said()
    assert "240 rows" in said and "resumed from step" in said
    result = json.loads((stories.run / "final" / "result.json").read_text())
    (evaluation,) = result["evaluations"]
    assert evaluation["step"] == result["step"] == 30
    assert 0 < evaluation["eval_loss"] < 0.8 * losses(stories)[1]
    assert "step 30/30  eval_loss" in said and "eval_loss" not in stories.stopped.said()


def losses(stories: Stories) -> dict[int, float]:
    return {point.step: point.value for point in curves(stories.run).Scalars("train/loss")}


def test_both_attempts_are_one_curve_in_tensorboard_with_samples_as_text(stories: Stories) -> None:
    assert list(losses(stories)) == list(range(1, 31))
    events = curves(stories.run)
    assert [point.step for point in events.Scalars("eval/loss")] == [30]
    (table,) = events.Tensors("samples")
    text = table.tensor_proto.string_val[0].decode()
    assert len(text.splitlines()) == 2 + 3 and "distinct words" in text


def test_the_three_prompts_are_answered_with_figures_on_their_words(stories: Stories) -> None:
    prompts = YAML(typ="safe").load(stories.recipe)["samples"]["prompts"]
    rows = stories.samples()
    assert [row["prompt"] for row in rows] == prompts and len(prompts) == 3
    for row in rows:
        assert row["step"] == 30
        assert row["words"] == len(row["generation"].split())
        assert 0 <= row["distinct_words"] <= row["words"] and 0 <= row["repetition"] <= 1
    assert any(row["words"] for row in rows)


def test_both_attempts_are_one_run_in_wandb(stories: Stories) -> None:
    known = json.loads((stories.run / "trackers.json").read_text())["wandb"]
    files = sorted((stories.run / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{known['id']}.wandb"] * 2
    first, second = ([row for row in history(file) if "train/loss" in row] for file in files)
    steps = [row["step"] for row in first]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 2
    assert [row["step"] for row in second] == list(range(len(steps) + 1, 31))
    (table,) = (stories.run / "wandb").rglob("media/table/*.json")
    assert [row[0] for row in json.loads(table.read_text())["data"]] == [row["prompt"] for row in stories.samples()]
