"""The image does its whole work for its own user and for any other, with nothing but a store to be reached."""

import json
import re
from pathlib import Path

import pytest

from job.demo import ANSWER
from tests.bucket import Bucket
from tests.container.conftest import Start
from tests.container.containers import HOME, USERS
from tests.container.networks import SECRET

pytestmark = [pytest.mark.container, pytest.mark.slow]


@pytest.mark.parametrize("user", USERS)
def test_the_demo_needs_no_network_and_no_other_folder(start: Start, user: str) -> None:
    container = start("demo", options=(f"--user={user}", "--network=none"))
    container.finished()
    assert ANSWER in container.said()


@pytest.mark.parametrize("user", USERS)
def test_a_run_needs_its_store_alone_and_tells_no_secret(begin: Start, store: Bucket, user: str) -> None:
    name = f"as-{user.replace(':', '-')}"
    container = begin(name, options=(f"--user={user}",))
    container.wait_for("step 5/60")
    routes = [line.split() for line in container.inside("cat", "/proc/net/route").splitlines()[1:]]
    assert routes and all(target != "00000000" for _, target, *_ in routes), "there is a way out"
    container.finished()
    client = store.client()
    result = json.loads(client.get_object(Bucket=store.name, Key=f"runs/{name}/final/result.json")["Body"].read())
    assert result["step"] == 60
    assert SECRET not in container.said()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=store.name, Prefix=f"runs/{name}/"):
        for found in page["Contents"]:
            body = client.get_object(Bucket=store.name, Key=found["Key"])["Body"].read()
            assert SECRET.encode() not in body, found["Key"]


@pytest.mark.parametrize(("strategy", "offload"), [("zero2", "optimizer"), ("zero3", "all")])
def test_deepspeed_needs_no_compiler(begin: Start, strategy: str, offload: str) -> None:
    fields = (f"parallel.strategy={strategy}", f"parallel.offload={offload}", "train.max_steps=5")
    container = begin(strategy, *fields)
    container.finished()
    assert not re.search(r"(?i)ninja|\bnvcc\b|g\+\+|compil", container.said())


def test_all_that_is_kept_lies_below_one_folder(start: Start) -> None:
    code = """
import pathlib, tempfile
from huggingface_hub.constants import HF_HOME
from job.machine import home
print(home(), pathlib.Path.home(), HF_HOME, tempfile.gettempdir())
"""
    told = start("-c", code, options=("--entrypoint=python", "--network=none"))
    told.finished()
    *places, temporary = map(Path, told.said().split())
    assert len(places) == 3 and all(place.is_relative_to(HOME) for place in places) and temporary == Path("/tmp")
