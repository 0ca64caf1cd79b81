"""Containers as a careful platform starts them, watched through their log, signalled, and removed at the end."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.container.building import Image
from tests.container.runtime import fresh_name

PATIENCE_SECONDS = 240.0
HOME = "/var/lib/sft-job"
CONFIG = "/etc/sft-job/run.yaml"
# What Kubernetes' restricted Pod Security Standard asks for, and a root file system that nobody can write to.
HARDENED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--tmpfs=/tmp",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)
USERS = ("10001:0", "4242:0")  # the image's own; any other, as some platforms choose one


@dataclass
class Container:
    """One, started when it is made. `folder`: for its log."""

    image: Image
    folder: Path
    arguments: Sequence[str]
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = fresh_name()
        self._log = self.folder / f"{self.name}.log"
        told = {"OMP_NUM_THREADS": "1", **self.environment}
        self.image.runtime.podman(
            *("run", "--detach", "--name", self.name, "--log-opt", f"path={self._log}", *HARDENED, *self.options),
            *(f"--env={name}={value}" for name, value in told.items()),
            self.image.name,
            *self.arguments,
        )

    def said(self) -> str:
        """What it wrote to stdout and stderr, without the log driver's marks."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(text + ("\n" if whole == "F" else "") for _, _, whole, text in (x.split(" ", 3) for x in lines))

    def wait_for(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said())):
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds} s:\n{self.said()}"
            assert self.runs() or re.search(pattern, self.said()), f"ended before {pattern!r}:\n{self.said()}"
            time.sleep(0.25)
        return found

    def wait_for_commit(self, step: int) -> None:
        self.wait_for("|".join(rf"step {n}/\d+  committed" for n in range(step, step + 200)))

    def runs(self) -> bool:
        return bool(self.inspected()["State"]["Running"])

    def inspected(self) -> Any:
        return json.loads(self.image.runtime.podman("container", "inspect", self.name))[0]

    def inside(self, *command: str) -> str:
        return self.image.runtime.podman("exec", self.name, *command)

    def stop(self, grace_seconds: int) -> int:
        """As a platform does: TERM to its first process, and KILL after the grace. Its exit code."""
        self.image.runtime.podman("stop", f"--time={grace_seconds}", self.name, seconds=grace_seconds + 60)
        return self.ended()

    def kill(self) -> None:
        self.image.runtime.podman("kill", "--signal=KILL", self.name)

    def ended(self, seconds: float = PATIENCE_SECONDS) -> int:
        return int(self.image.runtime.podman("wait", self.name, seconds=seconds))

    def finished(self) -> None:
        code = self.ended()
        assert code == 0, f"exit code {code}:\n{self.said()}"

    def remove(self) -> None:
        self.image.runtime.podman("rm", "--force", "--volumes", "--time=0", self.name, check=False)
