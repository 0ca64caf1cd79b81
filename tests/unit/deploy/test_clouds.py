"""What cloud batch services are given, held against their published models: botocore's, and schemas for the others."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from job.cli import cli
from job.deploy.cloud_values import CONFIG_BYTES
from job.deploy.gcp_batch import NUMBERED
from job.errors import ConfigError
from tests.manifests import CONFIG

SCHEMAS = Path(__file__).parent / "schemas"
IMAGE = "r.example/sft-job@sha256:" + "a" * 64
ALWAYS = {
    "aws-batch": "--queue q",
    "gcp-batch": "--machine-type a3-highgpu-8g",
    "azure-ml": "--compute c",
    "skypilot": "--accelerator H100",
}
ROLE = "arn:aws:iam::111122223333:role/"
HOSTILE = ["y", "no", "2", "1e3", "", "a b", "$(HOME)", "${HOME}", "`id`", "'\"", "微调", "a\nb"]


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return str(path)


def render(service: str, run: str, *words: str) -> dict[str, Any]:
    command = ["render", service, run, "--image", IMAGE, *ALWAYS[service].split(), *words]
    done = CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False)
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def check_aws(found: dict[str, Any]) -> None:
    model = botocore.session.get_session().get_service_model("batch")
    for call, operation in {"registerJobDefinition": "RegisterJobDefinition", "submitJob": "SubmitJob"}.items():
        shape = model.operation_model(operation).input_shape
        assert not ParamValidator().validate(found[call], shape).has_errors()
        assert found[call].keys() <= shape.members.keys()


def check(service: str, found: dict[str, Any]) -> None:
    if service == "aws-batch":
        check_aws(found)
        return
    names = {"gcp-batch": "gcp-batch-job", "azure-ml": "azure-ml-command-job", "skypilot": "skypilot-task"}
    schema = json.loads((SCHEMAS / f"{names[service]}.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(found)


@pytest.mark.parametrize("service", ALWAYS)
@pytest.mark.parametrize("words", ["", "--nodes 3", "--set train.epochs=1 --env NCCL_DEBUG=INFO"])
def test_what_is_rendered_is_what_the_service_takes(service: str, words: str, run_yaml: str) -> None:
    check(service, render(service, run_yaml, *words.split()))


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            "aws-batch",
            f"--secret HF_TOKEN=arn:aws:secretsmanager:r:1:secret:x --execution-role {ROLE}e --job-role {ROLE}j",
        ),
        (
            "gcp-batch",
            "--spot --secret HF_TOKEN=projects/1/secrets/x/versions/1 --accelerator nvidia-l4 "
            "--service-account a@b.iam.gserviceaccount.com",
        ),
        ("azure-ml", "--credentials azureml:aws-credentials:1"),
        ("skypilot", "--spot --secret HF_TOKEN --infra aws/us-east-1"),
    ],
)
def test_spot_identities_and_secrets_are_given_by_reference(service: str, words: str, run_yaml: str) -> None:
    check(service, found := render(service, run_yaml, *words.split()))
    text = json.dumps(found)
    assert all(word in text for word in words.split() if not word.startswith("-") and "HF_TOKEN=" not in word)


@pytest.mark.parametrize("service", ["aws-batch", "gcp-batch"])
def test_a_run_on_the_cpu_asks_for_no_gpus(service: str, run_yaml: str) -> None:
    check(service, found := render(service, run_yaml, "--set", "parallel.device=cpu"))
    text = json.dumps(found)
    assert '"GPU"' not in text and "--privileged" not in text and '"installGpuDrivers": true' not in text


def test_a_serverless_azure_job_may_be_spot(run_yaml: str) -> None:
    words = ["render", "azure-ml", run_yaml, "--image", IMAGE, "--instance-type", "Standard_NC40ads_H100_v5", "--spot"]
    found = yaml.safe_load(CliRunner().invoke(cli, words, catch_exceptions=False).stdout)
    check("azure-ml", found)
    assert found["queue_settings"] == {"job_tier": "Spot"} and "compute" not in found


def test_a_config_too_long_for_a_variable_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + "#" * CONFIG_BYTES)
    with pytest.raises(ConfigError, match="16 KiB"):
        render("aws-batch", str(path))


@pytest.mark.parametrize("service", ALWAYS)
def test_the_config_arrives_word_for_word_and_is_what_runs(
    service: str, run_yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`env:NAME` is a RUN like its file."""
    found = render(service, run_yaml)
    given = {
        "aws-batch": lambda: {
            e["name"]: e["value"] for e in found["registerJobDefinition"]["containerProperties"]["environment"]
        },
        "gcp-batch": lambda: found["taskGroups"][0]["taskSpec"]["environment"]["variables"],
        "azure-ml": lambda: found["environment_variables"],
        "skypilot": lambda: found["envs"],
    }[service]()
    assert given["SFT_JOB_CONFIG"] == CONFIG and "env:SFT_JOB_CONFIG" in json.dumps(found)
    monkeypatch.setenv("SFT_JOB_CONFIG", given["SFT_JOB_CONFIG"])
    from job.argument import config_of

    assert config_of("env:SFT_JOB_CONFIG", ("train.epochs=2",)) == config_of(run_yaml, ("train.epochs=2",))


def test_a_variable_that_is_not_set_and_a_mistake_in_one_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from job.argument import config_of

    with pytest.raises(ConfigError, match="the variable NOT_THERE is not set"):
        config_of("env:NOT_THERE", ())
    monkeypatch.setenv("THERE", CONFIG + "lerning: 1\n")
    with pytest.raises(ConfigError, match=r"^env:THERE:5: lerning"):
        config_of("env:THERE", ())


@pytest.mark.parametrize("value", HOSTILE)
def test_shells_pass_arguments_on_as_they_are(value: str, run_yaml: str, tmp_path: Path) -> None:
    """Azure's command and SkyPilot's script, run by real shells with stand-ins for what they start."""
    said = tmp_path / "said"
    for name in ("tini", "docker"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" != info ] || exit 0\nprintf "%s\\0" "$@" >"$SAID"\n')
        (tmp_path / name).chmod(0o755)
    setting = f"run=s3://b/{json.dumps(value)[1:-1]}" if value else "run=s3://b/r"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SAID": str(said), "HOME": "/expanded"}
    for service, field in {"azure-ml": "command", "skypilot": "run"}.items():
        text = render(service, run_yaml, "--set", setting)[field]
        subprocess.run(["bash", "-c", text], env=environment, check=True, timeout=30)
        assert said.read_bytes().split(b"\0")[-2].decode() == setting


def test_a_node_of_google_batch_is_numbered_by_its_hosts_line(tmp_path: Path) -> None:
    """The script itself, with stand-ins for the image's programs."""
    (tmp_path / "tini").write_text('#!/bin/sh\nenv | grep ^SFT_JOB_ | sort\nprintf "%s\\n" "$@"\n')
    (tmp_path / "uname").write_text("#!/bin/sh\necho run-1\n")
    for name in ("tini", "uname"):
        (tmp_path / name).chmod(0o755)
    hosts = tmp_path / "hosts"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "BATCH_HOSTS_FILE": str(hosts), "BATCH_TASK_COUNT": "3"}
    for lines in (["run-0", "run-1", "run-10"], ["run-0.c.p.internal", "run-1.c.p.internal", "run-10.c.p.internal"]):
        hosts.write_text("".join(f"{line}\n" for line in lines))
        done = subprocess.run(
            ["sh", "-c", NUMBERED, "sft-job", "run", "a b"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.splitlines() == [
            f"SFT_JOB_LEADER={lines[0]}",
            "SFT_JOB_NODES=3",
            "SFT_JOB_NODE_RANK=1",
            "--",
            "sft-job",
            "run",
            "a b",
        ]
    hosts.write_text("run-0\nrun-10\n")
    assert subprocess.run(["sh", "-c", NUMBERED], env=environment, timeout=30).returncode == 69


def test_nodes_of_azure_and_of_aws_are_known_by_what_the_services_say(run_yaml: str) -> None:
    from job.host.place import place

    assert render("azure-ml", run_yaml, "--nodes", "2")["distribution"] == {
        "type": "pytorch",
        "process_count_per_instance": 1,
    }
    azure = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.4",
        "MASTER_PORT": "6105",
    }
    assert (place(azure).node_rank, place(azure).nodes, place(azure).leader) == (1, 2, "10.0.0.4")
    properties = render("aws-batch", run_yaml, "--nodes", "4")["registerJobDefinition"]["nodeProperties"]
    assert (properties["numNodes"], properties["mainNode"]) == (4, 0)
    (everywhere,) = properties["nodeRangeProperties"]
    assert everywhere["targetNodes"] == "0:"
