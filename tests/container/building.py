"""The image, built from the repository's own Dockerfile; pip's settings of this machine reach it as secrets alone."""

import ast
import configparser
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.container.base import base
from tests.container.runtime import Runtime
from tests.harness import ROOT

BUILD_SECONDS = 1500.0
EMPTY_BYTES = 4096  # or fewer, of a layer that only sets something
WHEELS = """
import importlib.metadata
print(sum(file.size or 0 for found in importlib.metadata.distributions() for file in found.files or []))
"""
NAME = "localhost/sft-job:tests"
CERTIFICATES = "/run/cacerts.pem"  # where the Dockerfile mounts them
VERSION, REVISION = "9.8.7", "0123abc"
PLANTED = "planted-e3b84f0a6c"  # in all that the build is told; the same always, as layers are kept


@dataclass(frozen=True)
class Image:
    runtime: Runtime
    name: str
    log: str  # of its build

    def layers_bytes(self) -> list[int]:
        """Of those that hold anything, the lowest first."""
        told = json.loads(self.runtime.podman("history", "--format=json", self.name))
        return [layer["size"] for layer in reversed(told) if layer["size"] > EMPTY_BYTES]

    def wheels_bytes(self) -> int:
        """What all installed wheels hold, unpacked, as they themselves record it."""
        words = ("run", "--rm", "--network=none", "--entrypoint=python", self.name, "-c", WHEELS)
        return int(self.runtime.podman(*words))


def build(runtime: Runtime, folder: Path) -> Image:
    """Call it `alone`. `folder`: for what the build alone is told."""
    pip = pip_settings(folder)
    arguments = {"BASE_IMAGE": base(runtime), "VERSION": VERSION, "REVISION": REVISION}
    words = [
        *("buildah", "build", "--layers", "--isolation=oci", "--network=host", "--format=oci"),
        *("--file", ROOT / "docker/Dockerfile", "--tag", NAME),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        *(["--build-arg=TORCH_INDEX="] if pip.has_torch else []),
        f"--secret=id=pipconf,src={pip.conf}",
        *([f"--secret=id=cacerts,src={pip.cacerts}"] if pip.cacerts else []),
        *(f"--volume={place}:{place}:ro" for place in pip.folders),
        ROOT,
    ]
    before = runtime.podman("images", "--quiet", "--no-trunc", NAME)
    log = folder / "build.log"
    with log.open("wb") as out:
        environment = {**runtime.environment, "PLANTED": PLANTED}
        code = subprocess.run(
            ["nice", *map(str, words)], env=environment, stdout=out, stderr=out, timeout=BUILD_SECONDS, check=False
        ).returncode
    said = log.read_text(encoding="utf-8", errors="replace")
    assert code == 0, said[-6000:]
    if before and before != runtime.podman("images", "--quiet", "--no-trunc", NAME):
        runtime.podman("rmi", before, check=False)
    return Image(runtime, NAME, said)


@dataclass(frozen=True)
class PipSettings:
    """What this machine's pip is told, for a build. `folders`: of this machine, that `conf` names."""

    conf: Path
    cacerts: Path | None
    folders: list[str]

    @property
    def has_torch(self) -> bool:
        """torch's own index is not asked then: it may be out of reach."""
        return any(next(Path(folder).glob("torch-*+cpu-*.whl"), None) for folder in self.folders)


def pip_settings(folder: Path) -> PipSettings:
    told = _told()
    found = {name: told[name] for name in ("index-url", "extra-index-url", "find-links") if name in told}
    places = [word for value in found.values() for word in value.split() if word.startswith(("/", "file:///"))]
    conf = configparser.RawConfigParser()
    conf["global"] = found
    cacerts = None
    if certificates := told.get("cert"):
        conf["global"]["cert"] = CERTIFICATES
        cacerts = folder / "cacerts.pem"
        cacerts.write_bytes(Path(certificates).read_bytes() + f"\n# {PLANTED}\n".encode())
    path = folder / "pip.conf"
    with path.open("w", encoding="utf-8") as file:
        file.write(f"# {PLANTED}\n")
        conf.write(file)
    return PipSettings(path, cacerts, sorted({found for place in places if (found := _folder(place))}))


def _told() -> dict[str, str]:
    """As `pip config list` has it; a variable wins over a file."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    told: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        if (at := name.rpartition(".")[2]) not in told or name.startswith(":env:"):
            told[at] = " ".join(ast.literal_eval(value).split())
    return told


def _folder(place: str) -> str | None:
    """An index refers to files beside it: the whole of it is needed."""
    path = Path(place.removeprefix("file://").removesuffix("/").removesuffix("/simple"))
    return str(path) if path.is_dir() else None
