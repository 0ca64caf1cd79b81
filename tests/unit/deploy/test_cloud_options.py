"""What no cloud service takes, or would do nothing there, is told in one line: the option, and what to give."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from job.cli import cli
from job.errors import ConfigError, ExitCode
from tests.manifests import CONFIG

ALWAYS = {
    "aws-batch": ["--queue", "q"],
    "gcp-batch": ["--machine-type", "m"],
    "azure-ml": ["--compute", "c"],
    "skypilot": ["--accelerator", "H100"],
}
TOKEN = "hf_" + "aB3dE6gH9j" * 4
AWS_KEY = "AKIA" + "ABCDEFGH" * 2
BARE_KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY01"  # as an AWS secret key may be
ROLE = "arn:aws:iam::111122223333:role/r"
PLACES = {"aws-batch": "arn:aws:ssm:r:1:parameter/x", "gcp-batch": "projects/p/secrets/s/versions/1"}


@pytest.fixture
def run_yaml(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return str(path)


def render(service: str, run: str, *words: str) -> str:
    """What is printed; the last of an option that is given twice holds."""
    command = ["render", service, run, "--image", "r.example/i:1", *ALWAYS[service], *words]
    return CliRunner().invoke(cli, command, catch_exceptions=False, standalone_mode=False).stdout


def refused(service: str, run: str, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        render(service, run, *words)
    assert caught.value.exit_code == ExitCode.CONFIG == 78 and "\n" not in str(caught.value)
    return str(caught.value)


REFUSED = [
    ("aws-batch", "--queue|", "--queue is empty: give a job queue's name or ARN"),
    ("aws-batch", "--queue|a b", "--queue does not fit: give a job queue's name or ARN"),
    ("aws-batch", "--job-role|x", "--job-role does not fit: give a role's ARN, like arn:aws:iam::"),
    ("aws-batch", "--job-role|", "--job-role is empty"),
    ("aws-batch", "--execution-role|x", "--execution-role does not fit: give a role's ARN"),
    ("aws-batch", f"--secret|A={PLACES['aws-batch']}", "--execution-role"),
    ("aws-batch", "--shm-size|32Gi", "--shm-size 32Gi counts against --memory 32Gi"),
    ("aws-batch", "--memory|1Mi", "--memory is 1Mi: give 1Gi at least"),
    ("aws-batch", "--memory|1Ei", "and 1Pi at most"),
    ("aws-batch", "--memory|much", "--memory is no size: give one like 32Gi"),
    ("aws-batch", "--shm-size|1", "--shm-size is 1: give 16Mi at least"),
    ("aws-batch", "--cpus|99999999999999", "--cpus is 99999999999999: give 10000 at most"),
    ("aws-batch", "--nodes|99999999999999", "--nodes is 99999999999999: give 10000 at most"),
    ("aws-batch", "--env|AWS_BATCH_JOB_ID=x", "--env AWS_BATCH_JOB_ID: that variable is set"),
    ("aws-batch", "--env|SFT_JOB_HOME=/x", "--env SFT_JOB_HOME: that variable is set"),
    ("gcp-batch", "--machine-type|", "--machine-type is empty: give a machine type, like a3-highgpu-8g"),
    ("gcp-batch", "--machine-type|A b", "--machine-type does not fit"),
    ("gcp-batch", "--service-account|x", "--service-account does not fit: give an e-mail"),
    ("gcp-batch", "--accelerator|x y", "--accelerator does not fit: give a kind of GPU, like nvidia-tesla-t4"),
    ("gcp-batch", "--accelerator|nvidia-l4|--gpus-per-node|0", "--gpus-per-node 1 or more, or neither"),
    ("gcp-batch", "--disk|1", "--disk is 1: give 20Gi at least"),
    ("gcp-batch", "--shm-size|64Gi", "counts against --memory"),
    ("gcp-batch", "--env|LD_LIBRARY_PATH=/x", "--env LD_LIBRARY_PATH: that variable is set"),
    ("gcp-batch", "--env|BATCH_TASK_COUNT=1", "--env BATCH_TASK_COUNT: that variable is set"),
    ("azure-ml", "--compute|", "--compute is empty: give a cluster's name"),
    ("azure-ml", "--compute|azureml:c", "--compute does not fit"),
    ("azure-ml", "--instance-type|", "--instance-type is empty"),
    ("azure-ml", "--instance-type|x", "and not both"),
    ("azure-ml", "--spot", "a cluster has its own priority"),
    ("azure-ml", "--credentials|", "--credentials is empty: give an asset, like azureml:aws-credentials:1"),
    ("azure-ml", "--credentials|~/.aws/credentials", "--credentials does not fit: give an asset"),
    ("azure-ml", "--env|AWS_SECRET_ACCESS_KEY=x", "--credentials azureml:ASSET:1"),
    ("aws-batch", "--set|run=/tmp/x", "containers have no such disk"),
    ("azure-ml", "--credentials|azureml:a:1|--env|AWS_SHARED_CREDENTIALS_FILE=/x", "that variable is set"),
    ("skypilot", "--infra|a b", "--infra does not fit: give a cloud"),
    ("skypilot", "--secret|x-y", "--secret takes a variable's name alone"),
    ("skypilot", "--secret|A=planted", "--secret takes a variable's name alone"),
    ("skypilot", "--secret|A|--secret|A", "--secret A is given twice"),
    ("skypilot", "--env|HF_TOKEN=x", "--secret HF_TOKEN"),
    ("skypilot", "--accelerator|H100:4", "--gpus-per-node says how many"),
    ("skypilot", "--gpus-per-node|0", "--gpus-per-node 1 or more, or neither"),
    ("skypilot", "--gpus-per-node|1000", "--gpus-per-node is 1000: give 100 at most"),
    ("skypilot", "--secret|A|--env|A=1", "--env and --secret both name A"),
    ("skypilot", "--secret|SFT_JOB_CONFIG", "--secret SFT_JOB_CONFIG: that variable is set"),
    ("aws-batch", f"--env|A=1|--secret|A={PLACES['aws-batch']}|--execution-role|{ROLE}", "both name A"),
    ("gcp-batch", f"--env|A=1|--secret|A={PLACES['gcp-batch']}", "--env and --secret both name A"),
    ("gcp-batch", "--env|HF_TOKEN=x", "--secret HF_TOKEN=WHERE"),
    ("gcp-batch", "--secret|A=planted", "--secret A: give where it lies"),
]
EVERYWHERE = [
    ("--image|", "--image is empty: give an image's name"),
    ("--image|Upper:1", "--image"),
    ("--image|a b", "--image"),
    ("--env|A", "write --env NAME=VALUE"),
    ("--env|a b=1", "write --env NAME=VALUE"),
    *((f"--env|{name}=9", f"--env {name}: that variable is set") for name in ("SFT_JOB_CONFIG", "SFT_JOB_NODES")),
    *((f"--env|{name}=9", f"--env {name}: that") for name in ("SFT_JOB_NODE_RANK", "SFT_JOB_LEADER")),
]


@pytest.mark.parametrize(("service", "words", "said"), REFUSED)
def test_a_mistake_is_refused_and_what_to_give_is_told(service: str, words: str, said: str, run_yaml: str) -> None:
    assert said in (told := refused(service, run_yaml, *words.split("|"))) and "planted" not in told


@pytest.mark.parametrize("service", ALWAYS)
@pytest.mark.parametrize(("words", "said"), EVERYWHERE)
def test_a_mistake_in_what_all_services_have_is_refused(service: str, words: str, said: str, run_yaml: str) -> None:
    assert said in refused(service, run_yaml, *words.split("|"))


@pytest.mark.parametrize("key", [TOKEN, AWS_KEY, BARE_KEY])
def test_a_key_where_a_variables_name_belongs_is_not_repeated(key: str, run_yaml: str) -> None:
    for service in ALWAYS:
        for words in (("--env", key), ("--env", f"{key}=1")):
            assert key not in refused(service, run_yaml, *words)
    for service, word in {"aws-batch": f"{key}=1", "gcp-batch": f"{key}=1", "skypilot": key}.items():
        assert key not in refused(service, run_yaml, "--secret", word)


@pytest.mark.parametrize(
    ("service", "option"),
    [
        *((service, "--image") for service in ALWAYS),
        *(("aws-batch", name) for name in ("--queue", "--job-role", "--execution-role")),
        *(("gcp-batch", name) for name in ("--machine-type", "--accelerator", "--service-account")),
        *(("azure-ml", name) for name in ("--compute", "--instance-type", "--credentials")),
        *(("skypilot", name) for name in ("--accelerator", "--infra")),
    ],
)
def test_a_key_in_any_options_value_is_refused_and_not_repeated(service: str, option: str, run_yaml: str) -> None:
    for value in (TOKEN, AWS_KEY, f"azureml://datastores/s/paths/x?sig={TOKEN}", f"https://me:{TOKEN}@h/x"):
        told = refused(service, run_yaml, option, value)
        assert told.startswith(f"{option} holds ") and TOKEN not in told and AWS_KEY not in told


def test_a_key_in_the_config_is_refused_with_what_this_service_has(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG + f"# {AWS_KEY}\n")
    told = {
        "azure-ml": "--credentials azureml:ASSET:1",
        "skypilot": "--secret NAME",
        "gcp-batch": "--secret NAME=WHERE",
    }
    for service, how in told.items():
        assert (said := refused(service, str(path))).endswith(how) and AWS_KEY not in said


@pytest.mark.parametrize(
    ("service", "option"),
    [
        *(("azure-ml", name) for name in ("--cpus", "--memory", "--gpus-per-node", "--disk", "--secret")),
        ("skypilot", "--shm-size"),  # it takes the machine's own
    ],
)
def test_what_would_do_nothing_is_not_offered(service: str, option: str) -> None:
    assert f"{option} " not in CliRunner().invoke(cli, ["render", service, "--help"]).output


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (
            "aws-batch",
            "--queue arn:aws:batch:us-east-1:111122223333:job-queue/gpu --nodes 1001 --memory 1Gi --shm-size 16Mi",
        ),
        ("aws-batch", "--job-role arn:aws-us-gov:iam::111122223333:role/team/sft_job+1"),
        ("gcp-batch", "--accelerator nvidia-tesla-t4 --service-account a-b@my-project.iam.gserviceaccount.com"),
        ("gcp-batch", "--gpus-per-node 0 --env LD_LIBRARY_PATH=/x --disk 20Gi --env SFT_JOB_GRACE=60"),
        ("azure-ml", "--credentials azureml:aws-credentials@latest --shm-size 64Gi"),
        ("azure-ml", "--credentials azureml://datastores/my_store/paths/a/credentials"),
        ("skypilot", "--infra k8s/arn:aws:eks:us-east-1:1:cluster/c --accelerator A100-80GB --memory 4Gi"),
        ("skypilot", "--infra aws/*/us-east-1a --secret AWS_ACCESS_KEY_ID --secret WANDB_API_KEY"),
    ],
)
def test_what_the_services_take_is_let_through(service: str, words: str, run_yaml: str) -> None:
    assert len(render(service, run_yaml, *words.split())) > 400


def test_a_sky_task_without_gpus_has_no_kind_of_them(run_yaml: str) -> None:
    words = ["render", "skypilot", run_yaml, "--image", "i:1", "--gpus-per-node", "0"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0 and "accelerators" not in done.stdout and "--gpus" not in done.stdout
    with pytest.raises(ConfigError, match="--accelerator says which kind of GPU"):
        CliRunner().invoke(cli, words[:-2], catch_exceptions=False, standalone_mode=False)


def test_hooks_and_a_run_on_cuda_get_what_they_need(run_yaml: str) -> None:
    assert "--env SFT_JOB_ALLOW_CODE=1" in refused("aws-batch", run_yaml, "--set", "hooks=s3://b/hooks.py")
    told = refused("aws-batch", run_yaml, "--set", "parallel.device=cuda", "--gpus-per-node", "0")
    assert told == "--gpus-per-node is 0, and parallel.device is cuda: give it one"
