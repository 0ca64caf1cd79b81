"""What the image is: whose user it has, what it starts, what it says of itself, and what is not in it."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.container.building import CERTIFICATES, PLANTED, REVISION, VERSION, Image, pip_settings
from tests.container.conftest import Start
from tests.container.containers import HOME, USERS
from tests.harness import ROOT

pytestmark = [pytest.mark.container, pytest.mark.slow]

SITE_PACKAGES = "/opt/sft-job/lib/python3.11/site-packages"
UNCOMPILED = 5  # files that are for another version of Python
SBOM_SECONDS = 300.0


def described(image: Image) -> Any:
    return json.loads(image.runtime.podman("image", "inspect", image.name))[0]


def test_it_starts_sft_job_under_an_init_without_a_shell_as_a_numbered_user(image: Image) -> None:
    config = described(image)["Config"]
    assert config["Entrypoint"] == ["tini", "--", "sft-job"] and config["Cmd"] == ["--help"]
    assert config["User"] == "10001:0" and config["Volumes"] == {HOME: {}}
    assert not config.get("Healthcheck") and "StopSignal" not in config
    environment = dict(told.split("=", 1) for told in config["Env"])
    assert environment["SFT_JOB_HOME"] == environment["HOME"] == config["WorkingDir"] == HOME


def test_it_says_what_it_is(image: Image) -> None:
    said = {name.rpartition(".")[2]: value for name, value in described(image)["Config"]["Labels"].items()}
    assert said["title"] == "sft-job" and said["licenses"] == "Apache-2.0" and said["variant"] == "cpu"
    assert (said["version"], said["revision"]) == (VERSION, REVISION)


@pytest.mark.parametrize("user", USERS)
def test_nothing_can_be_written_but_its_state_and_temporary_files(start: Start, user: str) -> None:
    """Also where the root file system is not read-only."""
    looked = start(
        *("/", "-xdev", "-writable", "-not", "-type", "l", "-not", "-path", "/proc/*", "-not", "-path", "/dev/*"),
        options=(f"--user={user}", "--entrypoint=find", "--read-only=false", "--network=none"),
    )
    looked.ended()
    allowed = re.compile(
        rf"(/tmp|/var/tmp|/run/lock|{HOME}|/etc/(hosts|hostname|resolv\.conf)|/run/\.containerenv)(/.*)?"
    )
    written = [line for line in looked.said().splitlines() if line.startswith("/") and not allowed.fullmatch(line)]
    assert not written


def test_nothing_can_be_compiled_in_it_or_installed_and_all_is_bytecode_already(start: Start) -> None:
    code = """
import importlib.util, pathlib, shutil, sys
print("programs", [name for name in "cc gcc g++ clang nvcc make ld pip pip3".split() if shutil.which(name)])
print("modules", [name for name in "pip hatchling hadolint".split() if importlib.util.find_spec(name)])
files = list(pathlib.Path(sys.prefix, "lib").rglob("*.py"))
print("bytecode", len(files), sum(not pathlib.Path(importlib.util.cache_from_source(f)).exists() for f in files))
"""
    told = start("-c", code, options=("--entrypoint=python", "--network=none"))
    told.finished()
    programs, modules, bytecode = told.said().splitlines()
    assert (programs, modules) == ("programs []", "modules []")
    files, uncompiled = map(int, bytecode.split()[1:])
    assert files > 10_000 and uncompiled <= UNCOMPILED


def test_it_is_hardly_larger_than_the_wheels_in_it(image: Image) -> None:
    layers = image.layers_bytes()
    assert len(layers) == 3, "the base, what is installed, sft-job itself"
    assert sum(layers) <= 1.1 * image.wheels_bytes()


def test_what_the_build_was_told_in_secret_is_in_no_layer_and_no_log(image: Image) -> None:
    storage = image.runtime.folder / "storage"
    layers = sorted(storage.glob("overlay/*/diff"))
    assert len(layers) > 3
    found = subprocess.run(["grep", "-rlFa", PLANTED, *layers], capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stdout) == (1, ""), found
    assert PLANTED not in image.log and PLANTED not in json.dumps(described(image))
    assert PLANTED not in image.runtime.podman("history", "--no-trunc", image.name)


def test_nothing_of_the_repository_but_the_package_reaches_a_build(image: Image, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY . /\n", encoding="utf-8")
    runtime, name = image.runtime, "localhost/sft-job:context"
    words = ("buildah", "build", "--no-cache", "--file", tmp_path / "Dockerfile", "--tag", name, "--iidfile")
    runtime.command(*words, tmp_path / "id", ROOT)
    try:
        place = Path(runtime.podman("image", "mount", name))
        files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    finally:
        runtime.podman("image", "unmount", "--force", name, check=False)
        runtime.podman("rmi", "--force", name, check=False)
    assert "job/cli.py" in files
    expected = re.compile(r"job/.+|docker/requirements-\w+\.lock|pyproject\.toml|README\.md|LICENSE")
    assert not [name for name in files if not expected.fullmatch(name) or name.endswith(".pyc")]


def test_the_readmes_command_lists_all_that_is_installed(image: Image, tmp_path: Path) -> None:
    """CycloneDX, by the command as it stands there, with this machine's settings for pip."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^podman run .*?sft-job -c '(.*cyclonedx.*)'", readme, re.MULTILINE)
    assert command is not None
    pip = pip_settings(tmp_path)
    image.runtime.podman(
        *("run", "--rm", "--user=0", "--network=host", f"--volume={tmp_path}:/out", "--entrypoint=sh"),
        f"--volume={pip.conf}:/etc/pip.conf:ro",
        *([f"--volume={pip.cacerts}:{CERTIFICATES}:ro"] if pip.cacerts else []),
        *(f"--volume={place}:{place}:ro" for place in pip.folders),
        *(image.name, "-c", command[1]),
        seconds=SBOM_SECONDS,
    )
    listed = json.loads((tmp_path / "sbom.json").read_text(encoding="utf-8"))
    assert listed["bomFormat"] == "CycloneDX"
    found = {
        f"{part['name'].lower().replace('_', '-').replace('.', '-')}=={part['version']}"
        for part in listed["components"]
    }
    lock = (ROOT / "docker/requirements-cpu.lock").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9.-]+==\S+)", lock, re.MULTILINE))
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert found == locked | {f"sft-job=={version}"}
