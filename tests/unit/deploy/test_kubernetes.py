"""The objects of a run: every choice lands where Kubernetes reads it, and what must never vary never does."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest

from job.deploy.handed_over import HandedOver, job_name
from job.deploy.k8s_rules import faults
from job.deploy.kubernetes_values import LEADER_PORT, Pods
from job.host.place import place
from job.host.sources import DEFAULT_PORT
from job.storage.identity import SCHEDULER_VARIABLES
from tests.manifests import Object, container, handed, pod, rendered, the

NAMES = [
    "微调",
    "",
    "-",
    "...",
    "UPPER_case.Run",
    "2024-run",
    "a" * 300,
    "a\nb: c",
    "$(HOME)",
    "'\"",
    "--x",
    "é",
    "node-0",
    "x/",
]


def variables(objects: list[Object]) -> dict[str, str]:
    """As the kubelet would set them: field references by their path, $(NAME) put in."""
    found: dict[str, str] = {}
    for variable in container(objects)["env"]:
        value = variable.get("value") or variable["valueFrom"]["fieldRef"]["fieldPath"]
        found[variable["name"]] = re.sub(r"(?<!\$)\$\((\w+)\)", lambda name: found[name[1]], value).replace("$$", "$")
    return found


def test_the_defaults_are_one_node_with_one_gpu_and_no_fault() -> None:
    objects = rendered()
    assert [value["kind"] for value in objects] == ["ServiceAccount", "ConfigMap", "Job"]
    assert container(objects)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container(objects)["args"] == ["run", "/etc/sft-job/run.yaml"]
    assert faults(objects) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "chosen", [{}, {"nodes": 1000}, {"nodes": 1000, "jobset": True}], ids=["one", "many", "jobset"]
)
def test_any_name_of_a_run_gives_objects_without_a_fault(name: str, chosen: dict[str, Any]) -> None:
    objects = rendered(handed(name), **chosen)
    assert faults(objects) == []
    assert len({value["metadata"]["name"] for value in objects}) == 1


def test_another_config_or_another_choice_is_another_job_and_the_same_is_the_same() -> None:
    runs = [handed(), handed(text="run: s3://b/r\n"), handed(sets=("train.epochs=1",))]
    names = [the(rendered(run), "Job")["metadata"]["name"] for run in runs]
    names += [the(rendered(nodes=2), "Job")["metadata"]["name"], the(rendered(image="x:1"), "Job")["metadata"]["name"]]
    assert len({*names}) == 5 and all(re.fullmatch(r"my-run-[0-9a-f]{8}", name) for name in names)
    assert the(rendered(), "Job")["metadata"]["name"] == names[0] == job_name(handed(), Pods())


def test_every_choice_lands_where_it_is_read() -> None:
    objects = rendered(
        image="r.example/sft-job@sha256:" + "a" * 64,
        gpus_per_node=8,
        namespace="team",
        queue="low",
        priority_class="batch",
        pull_secrets=("pull",),
        secrets=("s3", "hub"),
        environment={"NCCL_DEBUG": "INFO"},
        labels={"team": "nlp"},
        annotations={"note": "x"},
        node_selector={"gpu": "h100"},
        tolerations=((("key", "a"), ("operator", "Exists")),),
        claims={"shared": "/mnt/shared"},
        cache_size="1Ti",
        storage_class="nvme",
    )
    spec, main = pod(objects), container(objects)
    job = the(objects, "Job")
    assert main["image"].endswith("a" * 64) and main["resources"]["requests"]["nvidia.com/gpu"] == "8"
    assert {value["metadata"]["namespace"] for value in objects} == {"team"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "low" and job["spec"]["suspend"] is True
    assert spec["priorityClassName"] == "batch" and spec["imagePullSecrets"] == [{"name": "pull"}]
    assert main["envFrom"] == [{"secretRef": {"name": "s3"}}, {"secretRef": {"name": "hub"}}]
    assert {"name": "NCCL_DEBUG", "value": "INFO"} in main["env"]
    assert all(value["metadata"]["labels"]["team"] == "nlp" for value in objects)
    assert job["spec"]["template"]["metadata"]["annotations"] == {"note": "x"}
    assert spec["nodeSelector"] == {"gpu": "h100"} and spec["tolerations"] == [{"key": "a", "operator": "Exists"}]
    assert {"name": "claim-0", "mountPath": "/mnt/shared"} in main["volumeMounts"]
    state = next(volume for volume in spec["volumes"] if volume["name"] == "state")
    claim = state["ephemeral"]["volumeClaimTemplate"]["spec"]
    assert claim["storageClassName"] == "nvme" and claim["resources"]["requests"]["storage"] == "1Ti"
    assert main["resources"]["limits"]["ephemeral-storage"] == "12Gi"  # the node's own disk holds no state then
    assert faults(objects) == []


def test_an_account_that_is_there_is_used_and_none_is_made() -> None:
    objects = rendered(service_account="trainer")
    assert pod(objects)["serviceAccountName"] == "trainer"
    assert not [value for value in objects if value["kind"] == "ServiceAccount"]
    own = the(rendered(service_account_annotations={"eks.amazonaws.com/role-arn": "arn:x"}), "ServiceAccount")
    assert own["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:x"}


def test_a_run_folder_needs_no_config_map() -> None:
    objects = rendered(handed(text=None))
    assert [value["kind"] for value in objects] == ["ServiceAccount", "Job"]
    assert container(objects)["args"] == ["run", "s3://b/r"] and faults(objects) == []


def test_the_nodes_of_an_indexed_job_find_each_other_by_what_their_pods_are_told() -> None:
    objects = rendered(nodes=4)
    name = the(objects, "Job")["metadata"]["name"]
    told = variables(objects) | {"POD_JOB": name, "JOB_COMPLETION_INDEX": "3"}
    told["SFT_JOB_LEADER"] = f"{name}-0.{told['POD_SUBDOMAIN']}"
    assert variables(objects)["SFT_JOB_LEADER"] == "metadata.labels['batch.kubernetes.io/job-name']-0." + name
    here = place(told)
    assert (here.nodes, here.node_rank, here.leader, here.port) == (4, 3, f"{name}-0.{name}", LEADER_PORT)
    spec = the(objects, "Job")["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (
        "Indexed",
        4,
        4,
        24,
    )
    service = the(objects, "Service")
    assert service["metadata"]["name"] == pod(objects)["subdomain"] == told["POD_SUBDOMAIN"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert (
        LEADER_PORT
        == DEFAULT_PORT
        == service["spec"]["ports"][0]["port"]
        == container(objects)["ports"][0]["containerPort"]
    )


def test_a_jobsets_controller_makes_the_host_names() -> None:
    objects = rendered(nodes=2, jobset=True, queue="low")
    jobset = the(objects, "JobSet")
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert not [value for value in objects if value["kind"] in ("Job", "Service")]
    template = replicated["template"]["spec"]["template"]["spec"]
    told = {variable["name"]: variable for variable in template["containers"][0]["env"]}
    assert told["POD_SUBDOMAIN"]["value"] == jobset["metadata"]["name"] and "subdomain" not in template
    assert "jobset-uid" in told["SFT_JOB_KUBERNETES_JOB"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert replicated["template"]["spec"]["backoffLimit"] == 0 and jobset["spec"]["suspend"] is True
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 6


def test_a_pod_has_longer_to_end_than_its_run_and_is_told_so() -> None:
    objects = rendered(HandedOver("r", "run.yaml", "run: s3://b/r\n", (), 300, False), grace_seconds=300)
    assert pod(objects)["terminationGracePeriodSeconds"] == 330 and variables(objects)["SFT_JOB_GRACE"] == "300"


def test_a_job_is_told_its_own_identity_and_where_its_cause_is_read() -> None:
    told = variables(rendered())
    assert told["SFT_JOB_KUBERNETES_JOB"] == "metadata.labels['batch.kubernetes.io/controller-uid']"
    assert "SFT_JOB_KUBERNETES_JOB" in SCHEDULER_VARIABLES
    assert told["SFT_JOB_TERMINATION_LOG"] == container(rendered())["terminationMessagePath"]


@pytest.mark.parametrize(
    "value", ["y", "no", "2", "1e3", "", "$(HOME)", "$$", "a$b", "$(", "\n", "微调", '"', "x" * 5000]
)
def test_a_variable_and_an_argument_arrive_as_they_were_given(value: str) -> None:
    objects = rendered(handed(sets=(f"a={value}",)), environment={"N": value})
    given = container(objects)["env"][-1]
    assert given["name"] == "N" and kubelet(given["value"]) == value
    assert kubelet(container(objects)["args"][-1]) == f"a={value}" and faults(objects) == []


def kubelet(text: str) -> str:
    """$$ is $, and $(NAME) is replaced: kubernetes, third_party/forked/golang/expansion."""
    return re.sub(
        r"\$(\$|\((\w+)\))", lambda found: "$" if found[1] == "$" else os.environ.get(found[2], "EXPANDED"), text
    )


def test_another_process_gives_the_same_names() -> None:
    code = "from tests.manifests import rendered; print(rendered()[-1]['metadata']['name'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == rendered()[-1]["metadata"]["name"]
