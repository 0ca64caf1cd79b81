"""From options of the command line to pods: every mistake names its option and what it takes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from job.deploy.credentials import faults_of_text
from job.deploy.k8s_names import EXTENDED_RESOURCE, IMAGE, LABEL_LENGTH, NAME_LENGTH, is_name
from job.deploy.kubernetes_values import CONFIG, SHARED_MEMORY, STATE, Object, Pods
from job.deploy.quantities import GIB, quantity
from job.errors import ConfigError

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
TAKEN = (STATE, CONFIG, SHARED_MEMORY, "/tmp", "/opt/sft-job", "/usr/local/bin")
OF_THE_SYSTEM = ("bin", "boot", "dev", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr")
INSTEAD = {"SFT_JOB_NODES": "--nodes", "SFT_JOB_GRACE": "grace in the config", "SFT_JOB_HOME": "--cache-size or --disk"}
SET_HERE = {
    *INSTEAD,
    "HOME",
    "SFT_JOB_LEADER",
    "SFT_JOB_NODE_RANK",
    "SFT_JOB_TERMINATION_LOG",
    "SFT_JOB_KUBERNETES_JOB",
    "SFT_JOB_EXIT_FILE",
    "JOB_COMPLETION_INDEX",
    "POD_JOB",
    "POD_SUBDOMAIN",
}
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
SIZES = {"memory": "--memory", "shared_memory": "--shm-size", "disk": "--disk", "cache_size": "--cache-size"}


def checked(pods: Pods) -> Pods:
    """The same, with all sizes, names and variables well-formed. Raises: ConfigError."""
    for field, option in SIZES.items():
        size = getattr(pods, field)
        if size is not None and not _at_least(size, GIB // 64):
            raise ConfigError(f"{option} is {size!r}: give a size like 500Gi")
    refuse_shared_memory(pods.shared_memory, pods.memory)
    if not _at_least(pods.cpus, "0.1"):
        raise ConfigError(f"--cpus is {pods.cpus!r}: give a number, like 8")
    if pods.storage_class and not pods.cache_size:
        raise ConfigError("--storage-class is of the volume that --cache-size asks for; give that too")
    if pods.service_account and pods.service_account_annotations:
        raise ConfigError(
            "--service-account names one that is there: annotate that one, or leave it out and the run gets its own"
        )
    for option, names, longest in _names(pods):
        for name in names:
            if not is_name(name, longest):
                dot = " and ." if longest > LABEL_LENGTH else ""
                raise ConfigError(f"{option}: give a name of at most {longest} small letters, digits, -{dot}")
        if len({*names}) != len(names):
            raise ConfigError(f"{option} names the same one twice")
    if not EXTENDED_RESOURCE.fullmatch(pods.gpu_resource):
        raise ConfigError(f"--gpu-resource is {pods.gpu_resource!r}: give a device plugin's name, like nvidia.com/gpu")
    if QUEUE_LABEL in pods.labels:
        raise ConfigError(f"--label {QUEUE_LABEL}: give --queue, which also makes the job suspended")
    for name, value in pods.environment.items():
        if name in SET_HERE:
            raise ConfigError(f"--env {name}: the manifest sets it; {INSTEAD.get(name, 'leave it out')}")
        if not VARIABLE.fullmatch(name):
            raise ConfigError(f"--env {name!r} is no variable's name; write --env NAME=VALUE")
        if fault := next(faults_of_text(value, name), None):
            raise ConfigError(
                f"--env {name} {fault}: kubectl create secret generic S --from-literal={name}=..., then --secret S"
            )
    for path in pods.claims.values():
        if not _is_free(path):
            raise ConfigError(f"--claim ...:{path}: give a path of its own, like --claim NAME:/mnt/data")
    return pods


def refuse_shared_memory(shared: str, memory: str) -> None:
    """Where /dev/shm counts against a container's memory. Raises: ConfigError."""
    part, whole = quantity(shared), quantity(memory)
    if part and whole and part >= whole:
        raise ConfigError(f"--shm-size {shared} counts against --memory {memory}: give less of it")


def image_reference(text: str) -> str:
    """The same. Raises: ConfigError, which does not repeat it: there may be a password in it."""
    if not IMAGE.fullmatch(text):
        raise ConfigError(
            "--image: write registry.example.com/name:tag, or @sha256: and its 64 digits in place of the tag"
        )
    return text


def _is_free(path: str) -> bool:
    """Nothing of the image's or the pod's lies there, above it or, of what is not to be written to, below it."""
    place = PurePosixPath(path)
    if not place.is_absolute() or str(place) != path or ".." in place.parts or ":" in path:
        return False
    above = any(PurePosixPath(taken).is_relative_to(place) for taken in TAKEN)
    return not above and place.parts[1] not in OF_THE_SYSTEM and not place.is_relative_to("/opt/sft-job")


def _at_least(text: str, least: int | str) -> bool:
    value = quantity(text)
    return value is not None and value >= type(value)(least)


def _names(pods: Pods) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """(option, names, how long they may be) of objects that are there, or are referred to by a label."""
    one = {
        "--namespace": (pods.namespace, LABEL_LENGTH),
        "--queue": (pods.queue, LABEL_LENGTH),
        "--priority-class": (pods.priority_class, NAME_LENGTH),
        "--storage-class": (pods.storage_class, NAME_LENGTH),
        "--service-account": (pods.service_account, NAME_LENGTH),
    }
    yield from ((option, (name,), longest) for option, (name, longest) in one.items() if name is not None)
    yield "--pull-secret", pods.pull_secrets, NAME_LENGTH
    yield "--secret", pods.secrets, NAME_LENGTH
    yield "--claim", tuple(pods.claims), NAME_LENGTH


def pairs(option: str, given: Sequence[str], separator: str = "=") -> dict[str, str]:
    """NAME=VALUE, each name once. Raises: ConfigError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition(separator)
        if not name or not equals:
            raise ConfigError(f"{option} is {text!r}: write {option} NAME{separator}VALUE")
        if name in found:
            raise ConfigError(f"{option} {name} is given twice")
        if any("\ud800" <= sign <= "\udfff" for sign in text):  # as Python reads bytes that are none
            raise ConfigError(f"{option} {name} has bytes that are no UTF-8")
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
    """One a node where nothing is said, and none for a run on the CPU. Raises: ConfigError."""
    if asked and on_cpu:
        raise ConfigError(f"--gpus-per-node is {asked}, and parallel.device is cpu: they would be idle")
    return asked if asked is not None else 0 if on_cpu else 1


def find(objects: Sequence[Object], *kinds: str) -> Mapping[str, str]:
    """The metadata of the first object of one of these kinds."""
    found: Mapping[str, str] = next(value["metadata"] for value in objects if value["kind"] in kinds)
    return found
