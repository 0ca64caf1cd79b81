"""kubectl, and what it builds from the manifests that are shipped."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import ROOT

Built = list[dict[str, Any]]
LEAST = (1, 21)  # the first whose kustomize knows components
HOW = "one is in Debian 13's kubernetes-client, others at kubernetes.io/docs/tasks/tools"


def missing() -> str | None:
    """Why kubectl cannot be used."""
    if shutil.which("kubectl") is None:
        return f"there is no kubectl; {HOW}"
    said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"v(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < LEAST:
        return f"kubectl is too old for components: {said.splitlines()[:1]}; {HOW}"
    return None


@pytest.fixture(scope="session")
def kustomize() -> Callable[[Path], Built]:
    """Builds a folder. In CI (the variable CI is set) kubectl may not be missing."""
    if (why := missing()) is not None:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)

    def build(folder: Path) -> Built:
        command = ["kubectl", "kustomize", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return list(yaml.safe_load_all(done.stdout))

    return build


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    """A copy of k8s/, to be changed."""
    return Path(shutil.copytree(ROOT / "k8s", tmp_path / "k8s"))
