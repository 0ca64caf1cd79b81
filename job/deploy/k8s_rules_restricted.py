"""What a careful cluster admits: Pod Security's restricted profile, and Kyverno's policies of the same names.

Source: kubernetes.io/docs/concepts/security/pod-security-standards; kyverno/policies, pod-security and best-practices.
"""

import re
from collections.abc import Iterator

from job.deploy.k8s_objects import Objects, containers, dictionaries, dictionary, jobs
from job.deploy.k8s_rules_job import Rule

VOLUMES = ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret")
SECCOMP = ("RuntimeDefault", "Localhost")
MUTABLE = re.compile(r"(:latest|/[^:@]*|^[^:@/]*)$")  # the tag latest, or none at all


def shares_nothing_with_the_host(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if job.pod.get(field):
                yield f"{job.where}: {field}"
        for container in containers(job):
            if any("hostPort" in port for port in dictionaries(container.spec, "ports")):
                yield f"{container.where}: hostPort"


def volumes_are_no_host_paths(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for volume in dictionaries(job.pod, "volumes"):
            for kind in volume.keys() - {"name", *VOLUMES}:
                yield f"{job.where}: volume {volume.get('name')} is {kind}"


def runs_as_a_user(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        pod = dictionary(job.pod, "securityContext")
        for container in containers(job):
            context = {**pod, **dictionary(container.spec, "securityContext")}
            if context.get("runAsNonRoot") is not True:
                yield f"{container.where}: runAsNonRoot is not set"
            if 0 in (context.get("runAsUser"), context.get("runAsGroup")):
                yield f"{container.where}: runAsUser or runAsGroup is 0"
            if dictionary(context, "seccompProfile").get("type") not in SECCOMP:
                yield f"{container.where}: seccompProfile is one of {', '.join(SECCOMP)}"
        if "sysctls" in pod:
            yield f"{job.where}: sysctls"


def gains_no_privilege(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            context = dictionary(container.spec, "securityContext")
            capabilities = dictionary(context, "capabilities")
            if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                yield f"{container.where}: allowPrivilegeEscalation is not off"
            if "ALL" not in (capabilities.get("drop") or ()) or capabilities.get("add"):
                yield f"{container.where}: capabilities: drop ALL, and add none"
            if context.get("procMount", "Default") != "Default":
                yield f"{container.where}: procMount"


def root_is_read_only(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            if dictionary(container.spec, "securityContext").get("readOnlyRootFilesystem") is not True:
                yield f"{container.where}: readOnlyRootFilesystem is not set"


def no_token_is_mounted(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        if job.pod.get("automountServiceAccountToken") is not False:
            yield f"{job.where}: automountServiceAccountToken is not off"


def disks_are_bounded(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for volume in dictionaries(job.pod, "volumes"):
            if "emptyDir" in volume and "sizeLimit" not in dictionary(volume, "emptyDir"):
                yield f"{job.where}: volume {volume.get('name')}: emptyDir without sizeLimit"


def resources_are_said(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            requests, limits = (dictionary(container.spec, "resources", kind) for kind in ("requests", "limits"))
            if not {"cpu", "memory"} <= requests.keys() or "memory" not in limits:
                yield f"{container.where}: requests of cpu and memory, and a limit of memory"


def images_have_a_version(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for container in containers(job):
            image = container.spec.get("image")
            if not isinstance(image, str) or not image or MUTABLE.search(image):
                yield f"{container.where}: image {image}: with a tag other than latest, or by digest"


RULES: tuple[Rule, ...] = (
    shares_nothing_with_the_host,
    volumes_are_no_host_paths,
    runs_as_a_user,
    gains_no_privilege,
    root_is_read_only,
    no_token_is_mounted,
    disks_are_bounded,
    resources_are_said,
    images_have_a_version,
)
