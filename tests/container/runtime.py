"""Buildah, podman and runc with storage, networks and settings of the tests' own; the machine's are left alone.

The storage outlasts a session, so that the layers of a build do: it lies in the user's cache, one for each Dockerfile
with its locks, and only the newest is kept.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.harness import ROOT

NEEDED = ("buildah", "podman", "runc", "mmdebstrap", "iptables")
PACKAGES = "buildah podman runc mmdebstrap containernetworking-plugins netavark aardvark-dns iptables"
COMMAND_SECONDS = 120.0
DECIDES = ("docker/Dockerfile", "docker/requirements-build.lock", "docker/requirements-cpu.lock")
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/storage"
runroot = "{short}/storage"
"""
# runc: crun refuses the mixed control groups of some machines. No systemd is asked to make groups.
CONTAINERS = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
tmp_dir = "{short}/engine"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""


def program(name: str) -> str:
    """Its path, or ""."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])) or ""


def missing() -> str | None:
    """Why no container can be built and run here."""
    if os.geteuid() != 0:
        return "control groups and networks of containers need root here"
    absent = [name for name in NEEDED if not program(name)]
    return f"{', '.join(absent)} not installed (Debian: apt-get install {PACKAGES})" if absent else None


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sft-job-tests"


def key() -> str:
    """Of what decides the layers that take long."""
    return hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in DECIDES)).hexdigest()[:12]


@dataclass(frozen=True)
class Runtime:
    folder: Path

    @property
    def short(self) -> Path:
        """For sockets, whose paths have to be short; of no use after a restart of the machine."""
        return Path(tempfile.gettempdir()) / f"sft-{self.folder.name}"

    @property
    def environment(self) -> dict[str, str]:
        """No proxy or certificate of this machine's is handed on to containers."""
        return {
            "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]),
            "HOME": str(self.folder),
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder / "registries.conf"),
        }

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, text in (("storage.conf", STORAGE), ("containers.conf", CONTAINERS), ("registries.conf", "")):
            (self.folder / name).write_text(text.format(folder=self.folder, short=self.short), encoding="utf-8")

    def command(self, *words: object, seconds: float = COMMAND_SECONDS, check: bool = True) -> str:
        """What it wrote to stdout. Raises: AssertionError with its stderr where it failed."""
        done = subprocess.run(  # in a folder of its own: where memory ran out, conmon leaves a file in the current one
            list(map(str, words)),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0 or not check, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def podman(self, *words: object, seconds: float = COMMAND_SECONDS, check: bool = True) -> str:
        return self.command("podman", *words, seconds=seconds, check=check)

    def sweep(self) -> None:
        """Ends what a session left that was killed: names begin with the number of the process that made them."""
        for kind, remove in (("container", ("rm", "--force", "--volumes", "--time=0")), ("network", ("rm", "--force"))):
            listing = ("--all",) if kind == "container" else ()
            named = "{{.Names}}" if kind == "container" else "{{.Name}}"
            for name in self.podman(kind, "ls", *listing, "--format", named).split():
                owner = re.match(r"sft-(\d+)-", name)
                if owner and not Path("/proc", owner[1]).exists():
                    self.podman(kind, *remove, name, check=False)

    def remove(self) -> None:
        """All of it: what still runs, mounts, networks, files."""
        self.podman("system", "reset", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.short, ignore_errors=True)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process builds or clears at a time; others wait for it and find its layers."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def newest() -> Runtime:
    """For what the Dockerfile and the locks are now; storage of what they were before is removed. Call it `alone`."""
    runtime = Runtime(cache() / f"containers-{key()}")
    for other in cache().glob("containers-*"):
        if other != runtime.folder:
            Runtime(other).remove()
    runtime.prepare()
    runtime.sweep()
    return runtime


def fresh_name() -> str:
    return f"sft-{os.getpid()}-{secrets.token_hex(4)}"
