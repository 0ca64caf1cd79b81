"""What an API server refuses, or a kubelet cannot start, in a pod: each rule a function from parsed objects to faults.

Source: kubernetes, pkg/apis/core/validation/validation.go.
"""

import re
from collections import Counter
from collections.abc import Iterator

from job.deploy.k8s_names import LABEL_KEY, LABEL_VALUE
from job.deploy.k8s_objects import FoundJob, Objects, containers, dictionaries, dictionary, jobs
from job.deploy.k8s_rules_job import Rule
from job.deploy.quantities import quantity

PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)
EFFECTS, TOLERATES = ("NoSchedule", "PreferNoSchedule", "NoExecute"), ("Equal", "Exists")
MESSAGES = ("File", "FallbackToLogsOnError")


def quantities_are_well_formed(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            for kind in ("requests", "limits"):
                for name, value in dictionary(container.spec, "resources", kind).items():
                    amount = quantity(value)
                    if amount is None or amount < 0:
                        yield f"{container.where}: {kind}.{name} is {value!r}: no quantity, like 500m or 32Gi"
                    elif _is_extended(name) and amount != int(amount):
                        yield f"{container.where}: {kind}.{name} is {value}: a whole number"
        for volume in dictionaries(job.pod, "volumes"):
            size = dictionary(volume, "emptyDir").get("sizeLimit", "0")
            if quantity(size) is None:
                yield f"{job.where}: volume {volume.get('name')}: sizeLimit is {size!r}: no quantity, like 100Gi"


def requests_stay_within_limits(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            requests, limits = (dictionary(container.spec, "resources", kind) for kind in ("requests", "limits"))
            for name in requests.keys() & limits.keys():
                asked, most = quantity(requests[name]), quantity(limits[name])
                if asked is not None and most is not None and asked > most:
                    yield f"{container.where}: requests.{name} is {requests[name]}, more than limits.{name}"


def devices_are_asked_for_as_limited(objects: Objects) -> Iterator[str]:
    """GPUs cannot be overcommitted: request and limit are one number."""
    for job in jobs(objects):
        for container in containers(job):
            requests, limits = (dictionary(container.spec, "resources", kind) for kind in ("requests", "limits"))
            for name in filter(_is_extended, sorted(requests.keys() | limits.keys())):
                if name not in limits or quantity(requests.get(name, limits[name])) != quantity(limits[name]):
                    yield f"{container.where}: {name}: requests and limits are the same"


def _is_extended(name: str) -> bool:
    return "/" in name and not name.startswith("kubernetes.io/")


def mounts_have_their_volumes(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        volumes = Counter(volume.get("name") for volume in dictionaries(job.pod, "volumes"))
        yield from (f"{job.where}: two volumes are called {name}" for name, count in volumes.items() if count > 1)
        for container in containers(job):
            mounts = dictionaries(container.spec, "volumeMounts")
            for mount in mounts:
                if mount.get("name") not in volumes:
                    yield f"{container.where}: volumeMounts: there is no volume {mount.get('name')}"
            paths = Counter(mount.get("mountPath") for mount in mounts)
            yield from (f"{container.where}: two mounts at {path}" for path, count in paths.items() if count > 1)


def volumes_are_of_one_kind(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for volume in dictionaries(job.pod, "volumes"):
            if len(kinds := [name for name in volume if name != "name"]) != 1:
                yield f"{job.where}: volume {volume.get('name')} is of {len(kinds)} kinds: {', '.join(kinds) or 'none'}"


def ports_are_told_apart(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        ports = [port for container in containers(job) for port in dictionaries(container.spec, "ports")]
        names = Counter(port["name"] for port in ports if "name" in port)
        yield from (f"{job.where}: two ports are called {name}" for name, count in names.items() if count > 1)
        for name in names:
            if not PORT_NAME.fullmatch(str(name)):
                yield f"{job.where}: port name {name}: at most 15 small letters, digits and single hyphens"
        for port in ports:
            number = port.get("containerPort")
            if not (type(number) is int and 0 < number < 1 << 16):
                yield f"{job.where}: containerPort is {number}"


def variables_are_text(objects: Objects) -> Iterator[str]:
    """kubectl refuses a number, and YAML 1.1 reads y, no and 1e3 as something else."""
    for job in jobs(objects):
        for container in containers(job):
            variables = dictionaries(container.spec, "env")
            for variable in variables:
                name, value = variable.get("name"), variable.get("value", "")
                if not isinstance(name, str) or not VARIABLE.fullmatch(name):
                    yield f"{container.where}: env: {name!r} is no variable's name; quote it"
                if not isinstance(value, str):
                    yield f"{container.where}: env {name}: {value!r} is no text; quote it"
                if "value" in variable and "valueFrom" in variable:
                    yield f"{container.where}: env {name} has both value and valueFrom"
            names = Counter(str(variable.get("name")) for variable in variables)
            yield from (f"{container.where}: env: {name} twice" for name, count in names.items() if count > 1)
            for field in ("command", "args"):
                if not all(isinstance(word, str) for word in container.spec.get(field) or ()):
                    yield f"{container.where}: {field}: all words are text; quote them"


def containers_are_named(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        names = Counter(str(container.spec.get("name", "")) for container in containers(job))
        if not dictionaries(job.pod, "containers"):
            yield f"{job.where}: there is no container"
        for name, count in names.items():
            if count > 1 or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name, re.ASCII):
                yield f"{job.where}: container name {name!r}: a DNS label, once in a pod"


def user_is_not_root(objects: Objects) -> Iterator[str]:
    """The kubelet refuses to start uid 0 under runAsNonRoot, long after the server took the manifest."""
    for job in jobs(objects):
        pod = dictionary(job.pod, "securityContext")
        for container in containers(job):
            context = {**pod, **dictionary(container.spec, "securityContext")}
            if context.get("runAsNonRoot") and context.get("runAsUser") == 0:
                yield f"{container.where}: runAsUser is 0 with runAsNonRoot"


def grace_is_no_less_than_nothing(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        grace = job.pod.get("terminationGracePeriodSeconds", 30)
        if type(grace) is not int or grace < 0:
            yield f"{job.where}: terminationGracePeriodSeconds is {grace}: whole seconds, at least 0"
        yield from _message_faults(job)


def _message_faults(job: FoundJob) -> Iterator[str]:
    for container in containers(job):
        if container.spec.get("terminationMessagePolicy", "File") not in MESSAGES:
            yield f"{container.where}: terminationMessagePolicy: one of {', '.join(MESSAGES)}"


def labels_of_nodes_are_well_formed(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for key, value in dictionary(job.pod, "nodeSelector").items():
            if not LABEL_KEY.fullmatch(str(key)) or not (isinstance(value, str) and LABEL_VALUE.fullmatch(value)):
                yield f"{job.where}: nodeSelector {key}={value!r}: a label has at most 63 letters, digits, - _ and ."


def tolerations_are_well_formed(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for toleration in dictionaries(job.pod, "tolerations"):
            effect, operator = toleration.get("effect", EFFECTS[0]), toleration.get("operator", "Equal")
            if effect not in EFFECTS or operator not in TOLERATES:
                yield f"{job.where}: toleration {toleration.get('key')}: {operator}, {effect}"
            key, value = toleration.get("key"), toleration.get("value", "")
            if (key is not None and not LABEL_KEY.fullmatch(str(key))) or not LABEL_VALUE.fullmatch(str(value)):
                yield f"{job.where}: toleration {key}={value}: a taint has at most 63 letters, digits, - _ and ."
            if (operator == "Exists" and toleration.get("value")) or (operator == "Equal" and "key" not in toleration):
                yield f"{job.where}: toleration {toleration.get('key')}: Exists takes no value, Equal takes a key"


RULES: tuple[Rule, ...] = (
    quantities_are_well_formed,
    requests_stay_within_limits,
    devices_are_asked_for_as_limited,
    mounts_have_their_volumes,
    volumes_are_of_one_kind,
    ports_are_told_apart,
    variables_are_text,
    containers_are_named,
    user_is_not_root,
    grace_is_no_less_than_nothing,
    labels_of_nodes_are_well_formed,
    tolerations_are_well_formed,
)
