"""What the README says of names, codes, verbs, configs and refusals is what the code does."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from job import recipes
from job.cli import cli
from job.config import RunConfig, load_config
from job.config.marks import fields
from job.config.synonyms import explained
from job.errors import ConfigError, ExitCode

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCE = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "job").rglob("*.py")))
INTERNAL = {
    "SFT_JOB_PARENT_PID",
    "SFT_JOB_RUN_DIR",
    "SFT_JOB_DEVICE",
    "SFT_JOB_CPUS",
    "SFT_JOB_KUBERNETES_JOB",
    "SFT_JOB_DRILL",
}  # between our processes
PATHS = {field.path for field in fields(RunConfig)}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    assert found, f"the README has no section {title}"
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    assert len(lines) > 2
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def blocks(language: str = "") -> list[str]:
    return [
        body
        for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
        if kind == language
    ]


def typed() -> Iterator[list[str]]:
    """The words of every command line of sft-job that is shown."""
    for line in "\n".join(blocks()).splitlines():
        for command in line.removeprefix("$ ").split("&&"):
            words = shlex.split(command) if "sft-job" in command and not command.startswith("sft-job:") else []
            if words and words[0].rpartition("/")[2] == "sft-job":
                yield words[1:]


def test_the_table_of_exit_codes_is_the_one_in_the_code() -> None:
    assert [(int(cells[0]), cells[1]) for cells in rows("Exit codes")] == [(int(one), one.name) for one in ExitCode]


def test_the_verbs_are_those_of_the_command_line() -> None:
    assert {code(cells[0])[0].split()[1] for cells in rows("Verbs")} == set(cli.commands)
    shown = list(typed())
    assert {"run", "ask", "demo", "doctor"} <= {words[0] for words in shown} <= set(cli.commands)
    for words in shown:
        for word in words[1:]:
            assert not word.startswith("job/") or (ROOT / word).is_file(), word


def test_each_name_of_another_trainer_is_told_as_the_table_says() -> None:
    for theirs, ours in rows("Names you know"):
        needless = ours.startswith("not needed")
        here = code(ours)
        assert set(here) <= PATHS and (here or needless), ours
        for name in code(theirs):
            told = explained(name)
            assert told is not None, name
            if needless:
                assert told.startswith("not needed here"), (name, told)
            else:
                assert re.match(rf"here it is {re.escape(here[0])}(?![\w.])", told), (name, told)


def test_other_fields_of_the_schema_that_are_named_exist() -> None:
    sections = {path.partition(".")[0] for path in PATHS if "." in path}
    for name in code(README):
        if re.fullmatch(r"[a-z_]+\.[a-z_]+", name) and name.partition(".")[0] in sections:
            assert name in PATHS, name


def test_the_config_is_valid_and_fifteen_lines(tmp_path: Path) -> None:
    (shown,) = blocks("yaml")
    assert len(shown.splitlines()) == 15
    path = tmp_path / "run.yaml"
    path.write_text(shown, encoding="utf-8")
    config = load_config(path)
    assert config.model.base == "hf://Qwen/Qwen3-1.7B" and config.lora is not None


def refused() -> list[str]:
    return [span for line in section("What it is not").splitlines() if line.startswith("- ") for span in code(line)]


@pytest.mark.parametrize("setting", refused())
def test_what_is_said_to_be_refused_is_refused_in_one_line(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("run: runs/one\nmodel: {base: models/one}\ndata: {train: [a.jsonl]}\nlora: {}\n", encoding="utf-8")
    assert load_config(path).run == "runs/one"
    with pytest.raises(ConfigError, match="not supported yet") as raised:
        load_config(path, [setting])
    assert "\n" not in str(raised.value)


def test_its_own_variables_are_read_somewhere_and_all_are_listed() -> None:
    named = {name for cells in rows("Environment variables") for name in code(cells[0])}
    ours = {name for name in code(section("Environment variables")) if name.startswith("SFT_JOB_")}
    assert named
    assert ours and all(f'"{name}"' in SOURCE for name in ours)
    settings = {name for name in re.findall(r'"(SFT_JOB_[A-Z_]+)"', SOURCE) if name not in INTERNAL}
    assert settings == ours


def test_both_recipes_are_shown() -> None:
    shipped = {path.name for folder in recipes.__path__ for path in Path(folder).glob("*.yaml")}
    assert shipped == {Path(words[1]).name for words in typed() if words[1:] and "recipes" in words[1]}
    told = section("Two recipes")
    for folder in recipes.__path__:
        for path in Path(folder).glob("*.yaml"):
            assert load_config(path).run in told


def test_lines_of_a_run_are_as_the_program_prints_them() -> None:
    """Each shown line's fixed words stand in a format of the code."""
    for words in ("a fresh start, there is no commit yet", "resumed from step ", "the newest commit, all ",
                  "run the same command again to go on", "stopping at the next step", "finished: "):  # fmt: skip
        assert words in README and words in SOURCE, words


def test_lines_of_doctor_are_as_the_program_prints_them() -> None:
    lines = [line for block in blocks() for line in block.splitlines() if line.startswith("ok         ")]
    assert len(lines) == 14
    for line in lines:
        name, means = line[11:43].partition(" (")[0].strip(), line[43:].partition(" (")[0].partition(",")[0]
        assert name in SOURCE and means in SOURCE, line
