"""Objects held against Kubernetes' own schemas: an unknown kind is a failure, not a warning."""

import copy
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

SCHEMAS = Path(__file__).parent / "schemas"
NEWEST = {
    kubernetes_validate.utils.major_minor(version): version for version in kubernetes_validate.utils.all_versions()
}
MINORS = list(NEWEST.values())[-4:]
CUSTOM = {"jobset.x-k8s.io/v1alpha2": "jobset-v1alpha2"}  # kinds that no server has by itself


def check(objects: list[dict[str, Any]]) -> None:
    """By the newest four minor versions. Raises: what the validator raises, SchemaNotFoundError among it."""
    assert objects
    for found in objects:
        if found["apiVersion"] in CUSTOM:
            found = _checked_custom(found)
        for version in MINORS:
            kubernetes_validate.validate(found, version, strict=True)


def _checked_custom(found: dict[str, Any]) -> dict[str, Any]:
    """A JobSet by its schema; its jobs are then held against a Job's own."""
    schema = json.loads((SCHEMAS / f"{CUSTOM[found['apiVersion']]}.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(found)
    (replicated,) = found["spec"]["replicatedJobs"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **copy.deepcopy(replicated["template"])}
