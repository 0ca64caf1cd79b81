"""Two containers find each other by the name that a headless service gives to the first pod of an Indexed Job."""

import json

import pytest

from tests.bucket import Bucket
from tests.container.conftest import Start
from tests.container.containers import Container

pytestmark = [pytest.mark.container, pytest.mark.slow]

SERVICE = "train"


def pod(begin: Start, index: int) -> Container:
    """As the manifest has it: the number of nodes, the leader's name, and the index that Kubernetes gives."""
    name = f"{SERVICE}-{index}"
    return begin(
        "two",
        "train.max_steps=20",
        options=(f"--hostname={name}", f"--network-alias={name}.{SERVICE}"),
        environment={
            "SFT_JOB_NODES": "2",
            "SFT_JOB_LEADER": f"{SERVICE}-0.{SERVICE}",
            "JOB_COMPLETION_INDEX": str(index),
        },
    )


def test_they_rendezvous_in_any_order_and_train(begin: Start, store: Bucket) -> None:
    follower = pod(begin, 1)
    follower.wait_for(f"{SERVICE}-0.{SERVICE}")
    leader = pod(begin, 0)
    leader.finished()
    follower.finished()
    assert "this node leads 2 nodes" in leader.said() and "on 2 x cpu (ddp)" in leader.said(), leader.said()
    result = store.client().get_object(Bucket=store.name, Key="runs/two/final/result.json")["Body"].read()
    assert json.loads(result)["step"] == 20
