"""Where the jobs, pods and containers are in parsed manifests, whoever wrote them: a Job's, or a JobSet's jobs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Objects = Sequence[Object]


@dataclass(frozen=True)
class FoundJob:
    where: str  # as people find it: Job/name
    name: str  # of the batch/v1 Job, as it will be
    spec: Object

    @property
    def pod(self) -> Object:
        return dictionary(self.spec, "template", "spec")


@dataclass(frozen=True)
class FoundContainer:
    where: str
    spec: Object
    init: bool


def jobs(objects: Objects) -> Iterator[FoundJob]:
    for found in objects:
        name = str(dictionary(found, "metadata").get("name", ""))
        if found.get("kind") == "Job":
            yield FoundJob(f"Job/{name}", name, dictionary(found, "spec"))
        elif found.get("kind") == "JobSet":
            for replicated in dictionaries(dictionary(found, "spec"), "replicatedJobs"):
                part, last = replicated.get("name", ""), int(replicated.get("replicas", 1)) - 1
                spec = dictionary(replicated, "template", "spec")
                yield FoundJob(f"JobSet/{name} {part}", f"{name}-{part}-{last}", spec)


def containers(job: FoundJob) -> Iterator[FoundContainer]:
    for field in ("initContainers", "containers"):
        for spec in dictionaries(job.pod, field):
            yield FoundContainer(f"{job.where} container {spec.get('name', '')}", spec, field == "initContainers")


def named(found: Object) -> str:
    return f"{found.get('kind', '')}/{dictionary(found, 'metadata').get('name', '')}"


def dictionary(value: Object, *path: str) -> Object:
    """The mapping at `path`, empty where there is none: manifests may be anybody's."""
    inner: Any = value
    for key in path:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}


def dictionaries(value: Object, key: str) -> list[Object]:
    found = value.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
