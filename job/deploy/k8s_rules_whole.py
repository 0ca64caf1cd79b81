"""What holds between objects, and of their names: each rule a function from parsed objects to faults."""

from collections import Counter
from collections.abc import Iterator

from job.deploy.credentials import faults_of_text
from job.deploy.k8s_names import LABEL_KEY, LABEL_LENGTH, LABEL_VALUE, NAME_LENGTH, is_name
from job.deploy.k8s_objects import Object, Objects, containers, dictionaries, dictionary, jobs, named
from job.deploy.k8s_rules_job import Rule

KINDS = {
    "Job": "batch/v1",
    "JobSet": "jobset.x-k8s.io/v1alpha2",
    "ConfigMap": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "PriorityClass": "scheduling.k8s.io/v1",
}
CONFIG_MAP_BYTES = 1 << 20
ANNOTATION_BYTES = 1 << 18


def kinds_are_known(objects: Objects) -> Iterator[str]:
    """A schema that is not found is no error to most tools."""
    for found in objects:
        if KINDS.get(str(found.get("kind"))) != found.get("apiVersion"):
            yield f"{named(found)}: {found.get('apiVersion')} has no {found.get('kind')} that is known here"
    twice = Counter(named(found) for found in objects)
    yield from (f"{name} is there twice" for name, count in twice.items() if count > 1)


def names_are_dns_names(objects: Objects) -> Iterator[str]:
    for found in objects:
        name = dictionary(found, "metadata").get("name")
        # Of the Service's name a DNS label is made, of a job's its pods' label.
        longest = NAME_LENGTH if found.get("kind") in ("ConfigMap", "ServiceAccount", "PriorityClass") else LABEL_LENGTH
        if not isinstance(name, str) or not is_name(name, longest):
            yield f"{named(found)}: the name has at most {longest} small letters, digits and hyphens"
        elif found.get("kind") == "Service" and not name[0].isalpha():
            yield f"{named(found)}: a Service's name begins with a letter"


def labels_are_well_formed(objects: Objects) -> Iterator[str]:
    for where, metadata in _all_metadata(objects):
        for key, value in dictionary(metadata, "labels").items():
            if not LABEL_KEY.fullmatch(str(key)) or not (isinstance(value, str) and LABEL_VALUE.fullmatch(value)):
                yield f"{where}: label {key}={value!r}: at most 63 letters, digits, - _ and ., and text"
        annotations = dictionary(metadata, "annotations")
        for key, value in annotations.items():
            if not LABEL_KEY.fullmatch(str(key)) or not isinstance(value, str):
                yield f"{where}: annotation {key}={value!r}: the key as a label's, the value text"
        if sum(len(f"{key}{value}".encode()) for key, value in annotations.items()) > ANNOTATION_BYTES:
            yield f"{where}: annotations take more than 256 KiB"


def _all_metadata(objects: Objects) -> Iterator[tuple[str, Object]]:
    yield from ((named(found), dictionary(found, "metadata")) for found in objects)
    yield from ((f"{job.where} pods", dictionary(job.spec, "template", "metadata")) for job in jobs(objects))


def parts_are_there(objects: Objects) -> Iterator[str]:
    """What a run brings along: its config, and the service behind its pods' host names."""
    there = {named(found) for found in objects}
    for job in jobs(objects):
        for volume in dictionaries(job.pod, "volumes"):
            name = dictionary(volume, "configMap").get("name")
            if name is not None and f"ConfigMap/{name}" not in there:
                yield f"{job.where}: volume {volume.get('name')}: there is no ConfigMap {name}"
        subdomain = job.pod.get("subdomain")
        if subdomain is not None and f"Service/{subdomain}" not in there:
            yield f"{job.where}: subdomain: there is no Service {subdomain}"


def services_give_host_names(objects: Objects) -> Iterator[str]:
    """Pods wait for each other before they are ready; without the last field none would have a host name till then."""
    subdomains = {job.pod.get("subdomain") for job in jobs(objects)}
    for found in objects:
        spec = dictionary(found, "spec")
        if found.get("kind") != "Service" or dictionary(found, "metadata").get("name") not in subdomains:
            continue
        if spec.get("clusterIP") != "None" or spec.get("publishNotReadyAddresses") is not True:
            yield f"{named(found)}: clusterIP None (text) and publishNotReadyAddresses true give pods their host names"


def config_maps_fit(objects: Objects) -> Iterator[str]:
    for found in objects:
        if found.get("kind") == "ConfigMap":
            texts = dictionary(found, "data")
            if any(not isinstance(text, str) for text in texts.values()):
                yield f"{named(found)}: data: all values are text"
            elif sum(len(text.encode()) for text in texts.values()) > CONFIG_MAP_BYTES:
                yield f"{named(found)}: more than 1 MiB, the most that a ConfigMap takes"


def no_credentials(objects: Objects) -> Iterator[str]:
    """Manifests are read by many, and kept in repositories: what is secret stands in a Secret that is there."""
    for found in objects:
        for key, text in dictionary(found, "data").items():
            yield from (f"{named(found)}: {key}: {fault}" for fault in faults_of_text(str(text)))
        if found.get("kind") == "Secret":
            yield f"{named(found)}: make it with kubectl, and name it here"
    for where, metadata in _all_metadata(objects):
        for kind in ("labels", "annotations"):
            for key, text in dictionary(metadata, kind).items():
                faults = faults_of_text(str(text), key.rpartition("/")[2])
                yield from (f"{where}: {kind}: {key}: {fault}" for fault in faults)
    for job in jobs(objects):
        for container in containers(job):
            for variable in dictionaries(container.spec, "env"):
                name, value = str(variable.get("name")), str(variable.get("value", ""))
                yield from (f"{container.where}: env {name}: {fault}" for fault in faults_of_text(value, name))
            for word in container.spec.get("args") or ():
                yield from (f"{container.where}: args: {fault}" for fault in faults_of_text(str(word)))
            yield from (
                f"{container.where}: image: {fault}" for fault in faults_of_text(str(container.spec.get("image", "")))
            )
        placed = [*dictionary(job.pod, "nodeSelector").values()]
        placed += [toleration.get("value", "") for toleration in dictionaries(job.pod, "tolerations")]
        for text in placed:
            yield from (f"{job.where}: nodeSelector or tolerations: {fault}" for fault in faults_of_text(str(text)))


RULES: tuple[Rule, ...] = (
    no_credentials,  # first: what others say may repeat a value
    kinds_are_known,
    names_are_dns_names,
    labels_are_well_formed,
    parts_are_there,
    services_give_host_names,
    config_maps_fit,
)
