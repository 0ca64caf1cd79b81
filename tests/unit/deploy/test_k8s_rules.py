"""Each semantic rule finds its fault in a manifest that is broken in one place, and none in what is rendered."""

from collections.abc import Callable
from typing import Any

import pytest

from job.deploy import k8s_rules_job, k8s_rules_pod, k8s_rules_restricted, k8s_rules_whole
from job.deploy.k8s_objects import Objects
from job.deploy.k8s_rules import RESTRICTED, SEMANTIC, faults, refuse_faults
from job.deploy.k8s_rules_job import Rule
from job.errors import ConfigError
from tests.manifests import Object, broken, container, pod, rendered, the

SEVERAL = rendered(nodes=2)
GANG = rendered(nodes=2, jobset=True)
PLACES: dict[str, Callable[[list[Object]], Any]] = {
    "job": lambda objects: the(objects, "Job")["spec"],
    "pod": pod,
    "container": container,
    "context": lambda objects: container(objects)["securityContext"],
    "pod context": lambda objects: pod(objects)["securityContext"],
    "requests": lambda objects: container(objects)["resources"]["requests"],
    "limits": lambda objects: container(objects)["resources"]["limits"],
    "rule": lambda objects: the(objects, "Job")["spec"]["podFailurePolicy"]["rules"][1],
    "codes": lambda objects: the(objects, "Job")["spec"]["podFailurePolicy"]["rules"][1]["onExitCodes"],
    "condition": lambda objects: the(objects, "Job")["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"][0],
    "policy": lambda objects: the(objects, "Job")["spec"]["podFailurePolicy"],
    "labels": lambda objects: the(objects, "Job")["spec"]["template"]["metadata"]["labels"],
    "env": lambda objects: container(objects)["env"][0],
    "port": lambda objects: container(objects)["ports"][0],
    "mount": lambda objects: container(objects)["volumeMounts"][1],
    "volume": lambda objects: pod(objects)["volumes"][1],
    "config": lambda objects: the(objects, "ConfigMap"),
    "head": lambda objects: the(objects, "Job")["metadata"],
    "service": lambda objects: the(objects, "Service")["spec"],
    "service head": lambda objects: the(objects, "Service")["metadata"],
}
j, p, w, r = k8s_rules_job, k8s_rules_pod, k8s_rules_whole, k8s_rules_restricted
FAULTS: list[tuple[Rule, str, dict[str, Any], str]] = [
    (j.never_restarts_in_place, "pod", {"restartPolicy": "OnFailure"}, "with podFailurePolicy it is Never"),
    (j.never_restarts_in_place, "pod", {"restartPolicy": "Always"}, "a job's is Never"),
    (j.no_selector, "job", {"selector": {"matchLabels": {"a": "b"}}}, "selector"),
    (j.generated_labels_are_left_alone, "labels", {"batch.kubernetes.io/job-name": "x"}, "controller sets it"),
    (j.failure_rules_are_well_formed, "codes", {"values": [0, 75]}, "0: that is success"),
    (j.failure_rules_are_well_formed, "codes", {"values": [77, 75]}, "in rising order"),
    (j.failure_rules_are_well_formed, "codes", {"values": [75, 75]}, "each once"),
    (j.failure_rules_are_well_formed, "codes", {"values": ["75"]}, "a list of numbers"),
    (j.failure_rules_are_well_formed, "codes", {"containerName": "main"}, "no such container"),
    (j.failure_rules_are_well_formed, "codes", {"operator": "in"}, "one of In, NotIn"),
    (j.failure_rules_are_well_formed, "rule", {"action": "Failjob"}, "one of FailJob"),
    (j.failure_rules_are_well_formed, "rule", {"onPodConditions": [{"type": "X", "status": "True"}]}, "it takes one"),
    (j.failure_rules_are_well_formed, "condition", {"status": True}, "as text"),
    (j.failure_rules_are_well_formed, "policy", {"rules": []}, "1 to 20"),
    (j.interruptions_come_first, "condition", {}, "rules that ignore come before"),
    (j.replaces_only_what_failed, "job", {"podReplacementPolicy": "TerminatingOrFailed"}, "is Failed with"),
    (
        j.limits_per_index_are_of_indexed_jobs,
        "job",
        {"completionMode": "NonIndexed", "backoffLimitPerIndex": 1},
        "Indexed",
    ),
    (j.limits_per_index_are_of_indexed_jobs, "rule", {"action": "FailIndex"}, "needs backoffLimitPerIndex"),
    (j.limits_per_index_are_of_indexed_jobs, "job", {"maxFailedIndexes": 1}, "needs backoffLimitPerIndex"),
    (j.choices_are_spelled, "job", {"completionMode": "indexed"}, "one of NonIndexed, Indexed"),
    (j.choices_are_spelled, "job", {"podReplacementPolicy": "failed"}, "one of TerminatingOrFailed, Failed"),
    (j.counts_fit, "job", {"backoffLimit": -1}, "at least 0"),
    (j.counts_fit, "job", {"completions": "2"}, "a whole number"),
    (j.counts_fit, "job", {"parallelism": 1}, "have to run at once"),
    (j.host_names_fit, "head", {"name": "a" * 62}, "at most 63"),
    (p.quantities_are_well_formed, "limits", {"memory": "32GB"}, "no quantity"),
    (p.quantities_are_well_formed, "requests", {"cpu": -1}, "no quantity"),
    (p.quantities_are_well_formed, "limits", {"nvidia.com/gpu": "500m"}, "a whole number"),
    (p.quantities_are_well_formed, "volume", {"emptyDir": {"sizeLimit": "100 Gi"}}, "sizeLimit"),
    (p.requests_stay_within_limits, "requests", {"memory": "33Gi"}, "more than limits.memory"),
    (p.devices_are_asked_for_as_limited, "requests", {"nvidia.com/gpu": 2}, "requests and limits are the same"),
    (p.devices_are_asked_for_as_limited, "limits", {"nvidia.com/gpu": None}, "requests and limits are the same"),
    (p.mounts_have_their_volumes, "mount", {"name": "cache"}, "no volume cache"),
    (p.mounts_have_their_volumes, "mount", {"mountPath": "/tmp"}, "two mounts at /tmp"),
    (p.mounts_have_their_volumes, "volume", {"name": "config"}, "two volumes are called config"),
    (p.volumes_are_of_one_kind, "volume", {"hostPath": {"path": "/x"}}, "of 2 kinds"),
    (p.ports_are_told_apart, "container", {"ports": [{"name": "a", "containerPort": 1}] * 2}, "two ports are called a"),
    (p.ports_are_told_apart, "port", {"name": "leader-of-all-nodes"}, "at most 15"),
    (p.ports_are_told_apart, "port", {"containerPort": 70000}, "containerPort is 70000"),
    (p.variables_are_text, "env", {"value": 2}, "no text; quote it"),
    (p.variables_are_text, "env", {"value": False}, "no text; quote it"),
    (p.variables_are_text, "env", {"name": False}, "no variable's name"),
    (p.variables_are_text, "env", {"name": "SFT_JOB_GRACE"}, "SFT_JOB_GRACE twice"),
    (p.variables_are_text, "env", {"valueFrom": {}}, "both value and valueFrom"),
    (p.variables_are_text, "container", {"args": ["run", 1]}, "all words are text"),
    (p.containers_are_named, "container", {"name": "SFT"}, "a DNS label"),
    (p.containers_are_named, "pod", {"containers": []}, "there is no container"),
    (p.user_is_not_root, "context", {"runAsUser": 0}, "runAsUser is 0 with runAsNonRoot"),
    (p.grace_is_no_less_than_nothing, "pod", {"terminationGracePeriodSeconds": -1}, "at least 0"),
    (p.grace_is_no_less_than_nothing, "container", {"terminationMessagePolicy": "Log"}, "one of File"),
    (p.labels_of_nodes_are_well_formed, "pod", {"nodeSelector": {"x": "y=z"}}, "nodeSelector x"),
    (p.labels_of_nodes_are_well_formed, "pod", {"nodeSelector": {"A_B/c": "x"}}, "at most 63 letters"),
    (p.tolerations_are_well_formed, "pod", {"tolerations": [{"key": "a", "effect": "NoRun"}]}, "NoRun"),
    (p.tolerations_are_well_formed, "pod", {"tolerations": [{"key": "x", "value": "a/b"}]}, "a taint has"),
    (p.tolerations_are_well_formed, "pod", {"tolerations": [{"key": "A_B/c", "operator": "Exists"}]}, "a taint has"),
    (
        p.tolerations_are_well_formed,
        "pod",
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "no value",
    ),
    (w.kinds_are_known, "config", {"apiVersion": "v2"}, "that is known here"),
    (w.kinds_are_known, "config", {"kind": "Deployment"}, "that is known here"),
    (
        w.kinds_are_known,
        "config",
        {"kind": "Service", "metadata": the(SEVERAL, "Service")["metadata"]},
        "is there twice",
    ),
    (w.names_are_dns_names, "head", {"name": "My_Run"}, "small letters"),
    (w.names_are_dns_names, "head", {"name": "a.b"}, "small letters"),
    (w.names_are_dns_names, "service head", {"name": "1run"}, "begins with a letter"),
    (w.labels_are_well_formed, "head", {"labels": {"a": "b/c"}}, "label a="),
    (w.labels_are_well_formed, "head", {"labels": {"a": True}}, "label a="),
    (w.labels_are_well_formed, "head", {"annotations": {"a b": "c"}}, "annotation a b="),
    (w.parts_are_there, "volume", {"configMap": {"name": "other"}}, "there is no ConfigMap other"),
    (w.parts_are_there, "pod", {"subdomain": "other"}, "there is no Service other"),
    (w.services_give_host_names, "service", {"publishNotReadyAddresses": False}, "publishNotReadyAddresses"),
    (w.services_give_host_names, "service", {"clusterIP": None}, "clusterIP None"),
    (w.config_maps_fit, "config", {"data": {"run.yaml": 1}}, "all values are text"),
    (w.config_maps_fit, "config", {"data": {"run.yaml": "x" * (1 << 20) + "y"}}, "1 MiB"),
    (w.no_credentials, "config", {"data": {"run.yaml": "secret_key: abcdefgh"}}, "holds a credential"),
    (w.no_credentials, "env", {"name": "HF_TOKEN", "value": "hf_x"}, "holds a credential"),
    (w.no_credentials, "container", {"args": ["--set", "a=https://me:pw@host/"]}, "a password in a URL"),
    (w.no_credentials, "config", {"kind": "Secret"}, "make it with kubectl"),
    (r.shares_nothing_with_the_host, "pod", {"hostNetwork": True}, "hostNetwork"),
    (r.shares_nothing_with_the_host, "port", {"hostPort": 1}, "hostPort"),
    (r.volumes_are_no_host_paths, "volume", {"hostPath": {"path": "/"}}, "is hostPath"),
    (r.runs_as_a_user, "pod context", {"runAsNonRoot": False}, "runAsNonRoot is not set"),
    (r.runs_as_a_user, "pod context", {"runAsGroup": 0}, "is 0"),
    (r.runs_as_a_user, "pod context", {"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
    (r.gains_no_privilege, "context", {"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
    (r.gains_no_privilege, "context", {"privileged": True}, "allowPrivilegeEscalation"),
    (r.gains_no_privilege, "context", {"capabilities": {"drop": ["NET_RAW"]}}, "drop ALL"),
    (r.gains_no_privilege, "context", {"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}, "add none"),
    (r.root_is_read_only, "context", {"readOnlyRootFilesystem": False}, "readOnlyRootFilesystem"),
    (r.no_token_is_mounted, "pod", {"automountServiceAccountToken": True}, "automountServiceAccountToken"),
    (r.disks_are_bounded, "volume", {"emptyDir": {}}, "without sizeLimit"),
    (r.resources_are_said, "limits", {"memory": None}, "a limit of memory"),
    (r.images_have_a_version, "container", {"image": "registry:5000/sft-job"}, "tag other than latest"),
    (r.images_have_a_version, "container", {"image": "sft-job:latest"}, "tag other than latest"),
]


def change(objects: Objects, place: str, values: dict[str, Any]) -> list[Object]:
    """None removes a field. The rules of a policy are turned round where nothing else is asked for."""

    def apply(found: list[Object]) -> None:
        if not values:
            the(found, "Job")["spec"]["podFailurePolicy"]["rules"].reverse()
            return
        there = PLACES[place](found)
        for name, value in values.items():
            if value is None:
                there.pop(name)
            else:
                there[name] = value

    return broken(list(objects), apply)


@pytest.mark.parametrize(
    ("rule", "place", "values", "said"), FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_rule_finds_its_fault(rule: Rule, place: str, values: dict[str, Any], said: str) -> None:
    assert list(rule(SEVERAL)) == []
    assert any(said in fault for fault in rule(change(SEVERAL, place, values)))


def test_every_rule_has_a_broken_manifest() -> None:
    assert {*SEMANTIC, *RESTRICTED} == {rule for rule, *_ in FAULTS}


@pytest.mark.parametrize("rule", [*SEMANTIC, *RESTRICTED], ids=lambda rule: rule.__name__)
def test_no_rule_stumbles_over_what_is_no_manifest(rule: Rule) -> None:
    for odd in (
        {},
        {"kind": "Job"},
        {"kind": "Job", "spec": None, "metadata": []},
        {"kind": "JobSet", "spec": {"replicatedJobs": [{}]}},
    ):
        list(rule([odd]))


def test_a_jobsets_jobs_are_looked_at_as_jobs_are() -> None:
    assert faults(GANG) == []
    spec = the(GANG, "JobSet")["spec"]["replicatedJobs"][0]["template"]["spec"]

    def worsen(found: list[Object]) -> None:
        template = the(found, "JobSet")["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        template["restartPolicy"] = "Always"
        template["containers"][0]["env"][0]["value"] = 1

    said = faults(broken(GANG, worsen))
    assert spec["backoffLimit"] == 0 and len(said) == 2 and all("JobSet/" in fault for fault in said)


def test_the_first_fault_is_told_and_how_many_more_there_are() -> None:
    def worsen(found: list[Object]) -> None:
        pod(found)["hostNetwork"] = True
        pod(found)["restartPolicy"] = "Always"

    with pytest.raises(
        ConfigError, match=r"^Job/my-run-\w+: restartPolicy is Always: a job's is Never \(and 1 more\)$"
    ):
        refuse_faults(broken(SEVERAL, worsen))
