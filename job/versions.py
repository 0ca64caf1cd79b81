"""Which versions made a checkpoint or a result, read without importing anything heavy."""

import platform
from importlib import metadata

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate")


def versions() -> dict[str, str]:
    from job import __version__

    found = {"sft-job": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
