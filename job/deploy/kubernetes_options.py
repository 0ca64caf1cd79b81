"""From options of the command line to pods: every mistake names its option and what it takes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from job.deploy.credentials import faults_of_text
from job.deploy.kubernetes_values import CONFIG, SHARED_MEMORY, STATE, Object, Pods
from job.deploy.quantities import GIB, quantity
from job.errors import ConfigError

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
TAKEN = (STATE, CONFIG, SHARED_MEMORY, "/tmp")
SIZES = {"memory": "--memory", "shared_memory": "--shm-size", "disk": "--disk", "cache_size": "--cache-size"}


def checked(pods: Pods) -> Pods:
    """The same, with all sizes, names and variables well-formed. Raises: ConfigError."""
    for field, option in SIZES.items():
        size = getattr(pods, field)
        if size is not None and not _at_least(size, GIB // 64):
            raise ConfigError(f"{option} is {size!r}: give a size like 500Gi")
    if (shared := quantity(pods.shared_memory)) and (memory := quantity(pods.memory)) and shared >= memory:
        raise ConfigError(f"--shm-size {pods.shared_memory} counts against --memory {pods.memory}: give less of it")
    if not _at_least(pods.cpus, "0.1"):
        raise ConfigError(f"--cpus is {pods.cpus!r}: give a number, like 8")
    if pods.storage_class and not pods.cache_size:
        raise ConfigError("--storage-class is of the volume that --cache-size asks for; give that too")
    if pods.service_account and pods.service_account_annotations:
        raise ConfigError(
            "--service-account names one that is there: annotate that one, or leave it out and the run gets its own"
        )
    for option, name in _names(pods):
        if not NAME.fullmatch(name):
            raise ConfigError(f"{option} is {name!r}: give a name of small letters, digits, - and .")
    for name, value in pods.environment.items():
        if not VARIABLE.fullmatch(name):
            raise ConfigError(f"--env {name!r} is no variable's name; write --env NAME=VALUE")
        if fault := next(faults_of_text(value, name), None):
            raise ConfigError(
                f"--env {name} {fault}: kubectl create secret generic S --from-literal={name}=..., then --secret S"
            )
    for path in pods.claims.values():
        if not path.startswith("/") or str(PurePosixPath(path)) != path or path in TAKEN:
            raise ConfigError(f"--claim ...:{path}: give a path of its own, like --claim NAME:/mnt/data")
    return pods


def _at_least(text: str, least: int | str) -> bool:
    value = quantity(text)
    return value is not None and value >= type(value)(least)


def _names(pods: Pods) -> list[tuple[str, str]]:
    """Of objects that are there, or are referred to by a label."""
    given = {
        "--namespace": (pods.namespace,),
        "--queue": (pods.queue,),
        "--priority-class": (pods.priority_class,),
        "--storage-class": (pods.storage_class,),
        "--service-account": (pods.service_account,),
        "--pull-secret": pods.pull_secrets,
        "--secret": pods.secrets,
        "--claim": tuple(pods.claims),
    }
    return [(option, name) for option, names in given.items() for name in names if name is not None]


def pairs(option: str, given: Sequence[str], separator: str = "=") -> dict[str, str]:
    """NAME=VALUE, each name once. Raises: ConfigError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition(separator)
        if not name or not equals:
            raise ConfigError(f"{option} is {text!r}: write {option} NAME{separator}VALUE")
        if name in found:
            raise ConfigError(f"{option} {name} is given twice")
        found[name] = value
    return found


def toleration(text: str) -> tuple[tuple[str, str], ...]:
    """key[=value][:effect], as kubectl taint writes them. Raises: ConfigError."""
    key, equals, rest = text.partition("=")
    value, colon, effect = (rest if equals else key).partition(":")
    key = key if equals else value
    if not key or (colon and effect not in EFFECTS) or (equals and not value):
        raise ConfigError(f"--toleration is {text!r}: write key, key=value or key=value:NoSchedule")
    found: dict[str, str] = {"key": key, "operator": "Equal" if equals else "Exists"}
    if equals:
        found["value"] = value
    if colon:
        found["effect"] = effect
    return tuple(found.items())


def gpus_asked(asked: int | None, on_cpu: bool) -> int:
    """One a node where nothing is said, and none for a run on the CPU."""
    return asked if asked is not None else 0 if on_cpu else 1


def find(objects: Sequence[Object], *kinds: str) -> Mapping[str, str]:
    """The metadata of the first object of one of these kinds."""
    found: Mapping[str, str] = next(value["metadata"] for value in objects if value["kind"] in kinds)
    return found
