"""A base image without a registry: Debian with Python and tini, made by mmdebstrap from this machine's package sources.

It stands for any base that is given as BASE_IMAGE: Python lies elsewhere than in the Dockerfile's default.
"""

import re
from pathlib import Path

from tests.container.runtime import Runtime, cache

RELEASE = "bookworm"  # of the Python that the locks are made for
PACKAGES = ("python3", "python3-venv", "tini", "ca-certificates")
IMAGE = "localhost/sft-job-base:bookworm"
BOOTSTRAP_SECONDS = 300.0
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def base(runtime: Runtime) -> str:
    """Its name. Call it `alone`."""
    if not runtime.podman("images", "--quiet", IMAGE):
        runtime.podman("import", archive(runtime), IMAGE, seconds=BOOTSTRAP_SECONDS)
    return IMAGE


def archive(runtime: Runtime) -> Path:
    path = cache() / f"base-{RELEASE}-{'-'.join(PACKAGES)}.tar"
    if not path.exists():
        making = path.with_suffix(".part.tar")
        making.unlink(missing_ok=True)
        excluded = [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
        included = f"--include={','.join(PACKAGES)}"
        words = ["mmdebstrap", "--mode=root", "--variant=apt", included, *excluded, RELEASE, making, *sources()]
        runtime.command(*words, seconds=BOOTSTRAP_SECONDS)
        making.replace(path)
    return path


def sources() -> list[str]:
    """The mirror that this machine installs from, where it is of the same release; else mmdebstrap's own choice."""
    listed = Path("/etc/apt/sources.list.d/debian.sources")
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    found = re.search(rf"^URIs: (\S+)\nSuites: {RELEASE}\b", text, re.MULTILINE)
    return [found[1]] if found else []
