"""Which versions made a checkpoint or a result, read without importing anything heavy."""

import platform
from collections.abc import Iterable
from importlib import metadata

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of those that are installed; ours and Python's first."""
    from job import __version__

    found = {"sft-job": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
