"""Objects for the tests of what is rendered: the same that the verbs print, without a process."""

import copy
from collections.abc import Callable
from typing import Any

from job.deploy import kubernetes
from job.deploy.handed_over import HandedOver
from job.deploy.kubernetes_values import Pods

Object = dict[str, Any]
CONFIG = """\
run: s3://my-bucket/runs/my-run
model: {base: s3://my-bucket/base}
data: {train: [s3://my-bucket/a.jsonl]}
lora: {}
"""


def handed(name: str = "my-run", text: str | None = CONFIG, sets: tuple[str, ...] = ()) -> HandedOver:
    return HandedOver(name, "run.yaml" if text is not None else "s3://b/r", text, sets, 120, on_cpu=False)


def rendered(run: HandedOver | None = None, **chosen: Any) -> list[Object]:
    return kubernetes.objects(run or handed(), Pods(**chosen))


def the(objects: list[Object], kind: str) -> Object:
    (found,) = (value for value in objects if value["kind"] == kind)
    return found


def pod(objects: list[Object]) -> Object:
    found: Object = the(objects, "Job")["spec"]["template"]["spec"]
    return found


def container(objects: list[Object]) -> Object:
    found: Object = pod(objects)["containers"][0]
    return found


def broken(objects: list[Object], change: Callable[[list[Object]], object]) -> list[Object]:
    found = copy.deepcopy(objects)
    change(found)
    return found
