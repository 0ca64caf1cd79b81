"""The README's commands for Kubernetes and cloud batch are taken as they stand there, with the README's own config."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from job.cli import cli
from job.deploy.kubernetes_pod import GRACE_MARGIN_SECONDS
from job.deploy.rules import RULES, Rule
from job.errors import ExitCode
from tests.harness import ROOT
from tests.k8s.checking import MINORS

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(
    r"^\$ sft-job ((?:render|submit) (?:k8s|aws-batch|gcp-batch|azure-ml|skypilot) .*)$", README, re.MULTILINE
)
CONFIG = re.findall(r"^```yaml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[0]


@pytest.mark.parametrize("line", SHOWN)
def test_a_command_that_is_shown_prints_what_it_is_said_to(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(CONFIG, encoding="utf-8")
    words = shlex.split(line.partition(" > ")[0])
    if words[0] == "submit":
        words.append("--dry-run")
    done = CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    assert list(yaml.safe_load_all(done.stdout))


def test_each_service_is_shown() -> None:
    assert {line.split()[1] for line in SHOWN} == {"k8s", "aws-batch", "gcp-batch", "azure-ml", "skypilot"}


def test_figures_and_codes_that_are_told_are_those_of_the_code() -> None:
    never = [str(int(code)) for code, rule in RULES.items() if rule is Rule.NEVER and code != ExitCode.FENCED]
    assert f"| {', '.join(never)} | has failed, at once" in README
    assert f"and {GRACE_MARGIN_SECONDS} s more to end" in README
    first, last = (".".join(version.split(".")[:2]) for version in (MINORS[0], MINORS[-1]))
    assert f"schemas of Kubernetes {first} to {last}" in README


def test_components_and_overlays_that_are_told_are_there() -> None:
    told = set(re.findall(r"`([a-z0-9-]+)`", README.split("`k8s/components` adds")[1].split("**Limits**")[0]))
    there = {path.name for path in (ROOT / "k8s/components").iterdir()}
    assert there == told
    for path in re.findall(r"`(k8s/[a-z0-9/-]+)`", README):
        assert (ROOT / path).is_dir(), path
