"""Options of the command line: what is meant is understood, and each mistake is told in one line that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from job.cli import cli
from job.deploy.kubernetes_options import checked, gpus_asked, image_reference, pairs, toleration
from job.deploy.kubernetes_values import Pods
from job.errors import ConfigError
from tests.manifests import CONFIG, container, pod, the


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return str(path)


def render(*words: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, ["render", "k8s", *words], catch_exceptions=False, standalone_mode=False)
    return list(yaml.safe_load_all(done.stdout))


def refused(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        CliRunner().invoke(cli, ["render", "k8s", *words], catch_exceptions=False, standalone_mode=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a", {"key": "a", "operator": "Exists"}),
        ("a:NoExecute", {"key": "a", "operator": "Exists", "effect": "NoExecute"}),
        ("a=b", {"key": "a", "operator": "Equal", "value": "b"}),
        ("x.io/a=b:NoSchedule", {"key": "x.io/a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}),
    ],
)
def test_a_toleration_is_written_as_taints_are(text: str, meant: dict[str, str]) -> None:
    assert dict(toleration(text)) == meant


@pytest.mark.parametrize("text", ["", ":NoSchedule", "a:Never", "a=", "=b", "a=b:c"])
def test_a_toleration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--toleration is"):
        toleration(text)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"memory": "lots"}, "--memory is 'lots': give a size like 500Gi"),
        ({"disk": "1k"}, "--disk is '1k'"),
        ({"cache_size": "5GB"}, "--cache-size is '5GB'"),
        ({"cpus": "0"}, "--cpus is '0'"),
        ({"shared_memory": "32Gi"}, "counts against --memory"),
        ({"storage_class": "nvme"}, "--cache-size"),
        ({"service_account": "a", "service_account_annotations": {"b": "c"}}, "annotate that one"),
        ({"queue": "A B"}, "--queue: give a name of at most 63 small letters, digits, -"),
        ({"queue": "a" * 64}, "--queue: give a name of at most 63"),
        ({"namespace": "a.b"}, "--namespace: give a name of at most 63 small letters, digits, -"),
        ({"secrets": ("s3=x",)}, "--secret: give a name of at most 253 small letters, digits, - and ."),
        ({"secrets": ("a", "a")}, "--secret names the same one twice"),
        ({"gpu_resource": "memory"}, "--gpu-resource is 'memory'"),
        ({"gpu_resource": "NVIDIA.com/gpu"}, "--gpu-resource is"),
        ({"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "give --queue"),
        ({"environment": {"SFT_JOB_GRACE": "600"}}, "grace in the config"),
        ({"environment": {"SFT_JOB_NODES": "3"}}, "--nodes"),
        ({"environment": {"POD_JOB": "x"}}, "leave it out"),
        ({"claims": {"a": "mnt"}}, "give a path of its own"),
        *(
            ({"claims": {"a": path}}, "give a path of its own")
            for path in (
                "/",
                "/tmp",
                "/usr",
                "/opt",
                "/opt/sft-job/x",
                "/proc",
                "/mnt/../x",
                "/etc/x",
                "/var/lib",
                "/mnt:ro",
            )
        ),
        ({"environment": {"A-B": "c"}}, "is no variable's name"),
        ({"environment": {"HF_TOKEN": "x"}}, "--secret S"),
        ({"environment": {"LOG": "AKIAABCDEFGHIJKLMNOP"}}, "an AWS key"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_by_its_option(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checked(Pods(**chosen))
    assert said in str(caught.value) and "AKIA" not in str(caught.value)


def test_pairs_are_kept_word_for_word_and_each_name_is_given_once() -> None:
    assert pairs("--env", ["A=b=c", "B="]) == {"A": "b=c", "B": ""}
    for wrong in (["A"], ["=b"], ["A=1", "A=2"]):
        with pytest.raises(ConfigError, match=r"^--env"):
            pairs("--env", wrong)


def test_gpus_are_asked_for_unless_the_run_is_on_the_cpu() -> None:
    assert [gpus_asked(None, False), gpus_asked(None, True), gpus_asked(0, True), gpus_asked(0, False)] == [1, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"--gpus-per-node is 2, and parallel\.device is cpu"):
        gpus_asked(2, True)


@pytest.mark.parametrize("free", ["/mnt/data", "/data", "/var/lib/sft-job/cache", "/opt/data"])
def test_a_claim_may_lie_wherever_nothing_else_does(free: str) -> None:
    assert checked(Pods(claims={"a": free})).claims == {"a": free}


@pytest.mark.parametrize(
    "image", ["a", "a:1", "r.io:5000/a_b/c--d:1.0_x", f"r.io/a:1@sha256:{'0' * 64}", "localhost/x", "REG.io/x:1"]
)
def test_an_image_is_one_that_a_node_can_pull(image: str) -> None:
    assert image_reference(image) == image


@pytest.mark.parametrize(
    "image", ["", " a", "a:b:c", "r.io/Foo:1", "x@sha256:abc", "x@sha256:...", "https://u:p@r.io/x", "u:p@r.io/x", "a/"]
)
def test_an_image_that_no_node_can_pull_is_refused_and_not_repeated(image: str) -> None:
    with pytest.raises(ConfigError, match=r"^--image: write registry.example.com/name:tag"):
        image_reference(image)


def test_a_name_is_the_same_however_the_file_is_named_and_in_whatever_order_labels_are(
    run_yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(run_yaml).parent)
    names = {
        the(render(path, *words.split()), "Job")["metadata"]["name"]
        for path in ("run.yaml", "./run.yaml", run_yaml)
        for words in ("--label a=1 --label b=2", "--label b=2 --label a=1")
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--image=", "--image: write"),
        ("--cache-size 1Ti --disk 50Gi", "in place of --disk"),
        ("--gpus-per-node 0 --set parallel.device=cuda", "parallel.device is cuda"),
        ("--set hooks=s3://b/hooks.py", "SFT_JOB_ALLOW_CODE=1"),
        ("--set run=s3://b/${TOKEN}", "name a secret that has it"),
        ("--env A=\udcff", "no UTF-8"),
        ("--node-selector x=AKIAABCDEFGHIJKLMNOP", "an AWS key"),
        ("--toleration x=AKIAABCDEFGHIJKLMNOP", "an AWS key"),
        ("--label aws_secret_access_key=wJalr/x", "holds a credential"),
        ("--label job-name=x", "the job's controller sets it"),
    ],
)
def test_what_would_do_something_else_than_asked_is_refused(run_yaml: str, words: str, said: str) -> None:
    told = refused(run_yaml, *words.split())
    assert said in told and "AKIA" not in told and "wJalr" not in told


def test_the_home_of_a_config_is_the_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("s3://my-bucket/runs/my-run", "s3://my-bucket/runs${HOME}"))
    assert the(render(str(path)), "Job")["metadata"]["name"].startswith("sft-job-")


def test_the_verb_prints_what_it_is_asked_for(run_yaml: str) -> None:
    words = """--nodes 2 --gpus-per-node 8 --queue q --image a.b/c:1 --pull-secret p --label team=x --annotation a=b
        --node-selector c=d --toleration e:NoSchedule --priority-class f --env N=no --secret s --namespace ns
        --cache-size 1Ti --storage-class nvme --service-account sa --set train.epochs=2"""
    objects = render(run_yaml, *words.split())
    assert container(objects)["args"][-2:] == ["--set", "train.epochs=2"]
    assert {"name": "N", "value": "no"} in container(objects)["env"]
    assert pod(objects)["serviceAccountName"] == "sa" and the(objects, "Job")["spec"]["completions"] == 2
    assert the(objects, "ConfigMap")["data"]["run.yaml"] == CONFIG


def test_a_run_on_the_cpu_asks_for_no_gpu(run_yaml: str) -> None:
    assert "nvidia.com/gpu" not in container(render(run_yaml, "--set", "parallel.device=cpu"))["resources"]["limits"]


def test_the_configs_grace_is_the_pods(run_yaml: str) -> None:
    assert pod(render(run_yaml, "--set", "grace=5m"))["terminationGracePeriodSeconds"] == 330


def test_a_run_folder_on_a_disk_is_refused_unless_it_is_mounted(run_yaml: str) -> None:
    assert "containers have no such disk" in refused(run_yaml, "--set", "run=/mnt/runs/a")
    objects = render(run_yaml, "--set", "run=/mnt/runs/a", "--claim", "runs:/mnt/runs")
    assert {"name": "claim-0", "persistentVolumeClaim": {"claimName": "runs"}} in pod(objects)["volumes"]


def test_a_variable_that_the_config_names_has_to_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "b")
    path = tmp_path / "run.yaml"
    path.write_text("# ${NOTE}\n" + CONFIG.replace("[s3://my-bucket/a.jsonl]", '"s3://${BUCKET}/a.jsonl"'))
    assert "names ${BUCKET}" in refused(str(path))
    objects = render(str(path), "--env", "BUCKET=other")
    assert "${BUCKET}" in the(objects, "ConfigMap")["data"]["run.yaml"]
    assert render(str(path), "--secret", "variables")  # which may hold it


def test_a_credential_in_the_config_is_refused_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + "# aws: AKIAABCDEFGHIJKLMNOP\n")
    assert "holds an AWS key" in (said := refused(str(path))) and "AKIA" not in said


def test_no_credential_of_this_machine_gets_into_what_is_printed(
    run_yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = "planted-0123456789"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, planted)
    clouds = {
        "k8s": "--nodes 2",
        "aws-batch": "--queue q --image i:1",
        "gcp-batch": "--machine-type m --image i:1",
        "azure-ml": "--compute c --image i:1",
        "skypilot": "--accelerator H100 --image i:1 --secret AWS_SECRET_ACCESS_KEY",
    }
    for name, words in clouds.items():
        done = CliRunner().invoke(cli, ["render", name, run_yaml, *words.split()], catch_exceptions=False)
        assert done.exit_code == 0 and len(done.stdout) > 400 and planted not in done.stdout
