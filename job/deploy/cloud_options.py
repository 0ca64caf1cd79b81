"""Options of the command line for a cloud's batch service: a mistake is told with what to give, its value never.

What stands where a name belongs may be a key that was pasted there.
"""

import re
from collections.abc import Mapping, Sequence

from job.deploy.credentials import faults_of_text
from job.deploy.kubernetes_options import VARIABLE, pairs
from job.deploy.quantities import GIB, quantity
from job.errors import ConfigError

MOST = {"--nodes": 10_000, "--gpus-per-node": 100, "--cpus": 10_000}  # beyond any machine there is: a slip of the hand
MOST_BYTES = 1024**2 * GIB
A_VALUE = re.compile(r"(?=.*\d)[A-Za-z0-9]{32,}", re.ASCII)  # as keys are, and no variable's name


def variables(option: str, given: Sequence[str]) -> dict[str, str]:
    """Of NAME=VALUE, or for a secret NAME=WHERE, each name once. Raises: ConfigError."""
    for text in given:
        name, equals, _ = text.partition("=")
        if not equals or not is_variable(name):
            wanted = "WHERE" if option == "--secret" else "VALUE"
            raise ConfigError(f"{option} has no variable's name: write {option} NAME={wanted}")
    return pairs(option, given)


def names(given: Sequence[str]) -> dict[str, str]:
    """Of --secret NAME, where the value is given elsewhere. Raises: ConfigError."""
    if not all(is_variable(name) for name in given):
        raise ConfigError(
            "--secret takes a variable's name alone, like --secret HF_TOKEN: sky jobs launch --secret HF_TOKEN "
            "reads its value"
        )
    return pairs("--secret", [f"{name}=" for name in given])


def is_variable(name: str) -> bool:
    """A key has often the form of a name as well."""
    return bool(VARIABLE.fullmatch(name)) and not A_VALUE.fullmatch(name) and not any(faults_of_text(name))


def of_form(option: str, value: str | None, form: str, wanted: str) -> None:
    """`wanted`: what to give. Raises: ConfigError."""
    if value is None:
        return
    if fault := next(faults_of_text(value), None):
        raise ConfigError(f"{option} {without_advice(fault)}: give {wanted}")
    if not re.fullmatch(form, value, re.ASCII):
        raise ConfigError(f"{option} {'does not fit' if value else 'is empty'}: give {wanted}")


def refuse_values(secrets: Mapping[str, str], form: str, example: str) -> None:
    """A secret's own value, typed where its place belongs, would be printed. Raises: ConfigError, not repeating it."""
    for name, place in secrets.items():
        if not re.fullmatch(form, place):
            raise ConfigError(
                f"--secret {name}: give where it lies, like {name}={example}; its value never stands here"
            )


def refuse_far_off(option: str, count: int) -> None:
    """Raises: ConfigError."""
    if count > MOST[option]:
        raise ConfigError(f"{option} is {count}: give {MOST[option]} at most")


def refuse_size(option: str, text: str, least_bytes: int, example: str) -> None:
    """Raises: ConfigError."""
    size = quantity(text)
    if size is None:
        raise ConfigError(f"{option} is no size: give one like {example}")
    if size < least_bytes or size > MOST_BYTES:
        least = f"{least_bytes // GIB}Gi" if least_bytes >= GIB else f"{least_bytes * 1024 // GIB}Mi"
        raise ConfigError(f"{option} is {text}: give {least} at least, and 1Pi at most, like {example}")


def refuse_idle_kind(accelerator: str | None, gpus_per_node: int) -> None:
    """Raises: ConfigError."""
    if accelerator and not gpus_per_node:
        raise ConfigError(
            "--accelerator is a kind of GPU, and this run has none: --gpus-per-node 1 or more, or neither"
        )


def without_advice(fault: str) -> str:
    """Of a credential: where it belongs is another place for each service."""
    return fault.partition(";")[0]
