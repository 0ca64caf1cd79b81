"""What is rendered is what the newest four minor versions of Kubernetes take, whatever is chosen."""

from typing import Any

import kubernetes_validate
import pytest

from job.deploy.k8s_rules import faults
from tests.k8s.checking import MINORS, check
from tests.manifests import broken, container, handed, rendered, the

HOSTILE = {
    "A": "y",
    "N": "no",
    "y": "2",
    "B": "1e3",
    "C": "",
    "D": "a: b\n- c",
    "E": "微调",
    "F": "$(HOME)",
    "G": "null",
}
CHOICES: dict[str, dict[str, Any]] = {
    "one node": {},
    "cpu": {"gpus_per_node": 0},
    "several": {"nodes": 16, "gpus_per_node": 8, "retries": 0},
    "queued": {"queue": "low", "priority_class": "batch"},
    "jobset": {"nodes": 4, "jobset": True, "queue": "low"},
    "volumes": {"cache_size": "1Ti", "storage_class": "nvme", "claims": {"data": "/mnt/data"}},
    "places": {"node_selector": {"a": "b"}, "tolerations": ((("key", "a"), ("operator", "Exists")),)},
    "identity": {"service_account_annotations": {"eks.amazonaws.com/role-arn": "arn:x"}, "pull_secrets": ("p",)},
    "hostile": {"environment": HOSTILE, "labels": {"y": "no", "2": "1e3"}, "annotations": {"a": "微调\n: - "}},
}


@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
def test_what_is_rendered_is_valid(chosen: dict[str, Any]) -> None:
    objects = rendered(handed("no"), **chosen)
    check(objects)
    assert faults(objects) == []


def test_the_schemas_are_of_four_minor_versions_and_refuse() -> None:
    assert len({kubernetes_validate.utils.major_minor(version) for version in MINORS}) == 4

    def misspell(found: list[dict[str, Any]]) -> None:
        container(found)["imagePolicy"] = "Always"

    def move(found: list[dict[str, Any]]) -> None:
        the(found, "Job")["apiVersion"] = "batch/v9"

    with pytest.raises(kubernetes_validate.ValidationError):
        check(broken(rendered(), misspell))
    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check(broken(rendered(), move))
