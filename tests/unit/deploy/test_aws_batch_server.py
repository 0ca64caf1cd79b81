"""A rendered job's two calls against an AWS Batch server over HTTP: registered, submitted, run, and as it was meant."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from job.deploy.aws_batch import evaluate_on_exit, requests
from job.deploy.cloud_values import Containers, checked
from tests.manifests import CONFIG, handed
from tests.servers import KEYS, moto_server

Client = Any


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """Of a server that ends jobs by itself instead of starting their containers."""
    with moto_server(tmp_path_factory.mktemp("aws") / "log") as endpoint:
        body = json.dumps({"batch": {"use_docker": False}}).encode()
        request = urllib.request.Request(f"{endpoint}/moto-api/config", data=body, method="POST")
        urllib.request.urlopen(request, timeout=30).close()
        chosen = {
            "endpoint_url": endpoint,
            "region_name": KEYS["AWS_DEFAULT_REGION"],
            "aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
        }
        yield {name: boto3.client(name, **chosen) for name in ("batch", "iam")}


@pytest.fixture(scope="module")
def queue(clients: dict[str, Client]) -> str:
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = clients["iam"].create_role(RoleName="batch", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    machines = clients["batch"].create_compute_environment(
        computeEnvironmentName="machines", type="UNMANAGED", state="ENABLED", serviceRole=role
    )
    made = clients["batch"].create_job_queue(
        jobQueueName="queue",
        state="ENABLED",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": machines["computeEnvironmentArn"]}],
    )
    return str(made["jobQueueName"])


def test_a_job_is_registered_and_submitted_as_it_was_rendered(clients: dict[str, Client], queue: str) -> None:
    run = handed(sets=("train.epochs=1",))
    containers = checked(run, Containers("r.example/sft-job:1", environment={"N": "no"}))
    calls = requests(run, containers, queue, job_role=None, execution_role=None)
    batch = clients["batch"]
    registered = batch.register_job_definition(**calls["registerJobDefinition"])
    (found,) = batch.describe_job_definitions(jobDefinitions=[registered["jobDefinitionArn"]])["jobDefinitions"]
    assert found["retryStrategy"]["attempts"] == 10
    rules = [{**rule, "action": rule["action"].upper()} for rule in found["retryStrategy"]["evaluateOnExit"]]
    assert rules == evaluate_on_exit()  # the case of an action counts as little there as it does at AWS
    properties = found["containerProperties"]
    assert properties["command"] == ["run", "env:SFT_JOB_CONFIG", "--set", "train.epochs=1"]
    told = {variable["name"]: variable["value"] for variable in properties["environment"]}
    assert told == {"SFT_JOB_CONFIG": CONFIG, "N": "no"}
    job = batch.submit_job(**calls["submitJob"])["jobId"]
    assert ended(batch, job) == "SUCCEEDED"


def test_a_job_of_several_nodes_is_registered_as_one(clients: dict[str, Client]) -> None:
    calls = requests(handed(), Containers("r.example/sft-job:1", nodes=3), "queue", job_role=None, execution_role=None)
    registered = clients["batch"].register_job_definition(**calls["registerJobDefinition"])
    definitions = clients["batch"].describe_job_definitions(jobDefinitions=[registered["jobDefinitionArn"]])
    assert [found["type"] for found in definitions["jobDefinitions"]] == ["multinode"]


def ended(batch: Client, job: str) -> str:
    for _ in range(600):
        status = str(batch.describe_jobs(jobs=[job])["jobs"][0]["status"])
        if status in ("SUCCEEDED", "FAILED"):
            return status
        time.sleep(0.1)
    raise AssertionError(status)
