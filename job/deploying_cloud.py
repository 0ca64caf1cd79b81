"""`render aws-batch | gcp-batch | azure-ml | skypilot`: what those services are given for a run, printed."""

import json
from typing import TYPE_CHECKING, Any

import click

from job.argument import SETS, with_options
from job.handing_over import run_in_containers

if TYPE_CHECKING:
    from job.deploy.cloud_values import Containers
    from job.deploy.handed_over import HandedOver

EVERYWHERE = (
    SETS,
    click.option("--image", metavar="IMAGE", required=True, help="By tag, or by digest: NAME@sha256:..."),
    click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True),
    click.option("--env", "environment", metavar="NAME=VALUE", multiple=True, help="No credentials."),
)
MACHINE = (
    click.option("--gpus-per-node", type=click.IntRange(min=0), help="[default: 1; 0 with parallel.device: cpu]"),
    click.option("--cpus", type=click.IntRange(min=1), default=8, show_default=True, help="Of a node."),
    click.option("--memory", metavar="SIZE", default="32Gi", show_default=True, help="Of a node."),
)
SHARED_MEMORY = click.option(
    "--shm-size", "shared_memory", metavar="SIZE", default="8Gi", show_default=True, help="/dev/shm."
)
SECRET = click.option(
    "--secret",
    "secrets",
    metavar="NAME=WHERE",
    multiple=True,
    help="A variable, and where the service keeps its value.",
)
SPOT = click.option("--spot", is_flag=True, help="Machines that may be taken away.")
DISK = click.option("--disk", metavar="SIZE", default="100Gi", show_default=True, help="Of a node.")


@click.command("aws-batch")
@click.argument("run")
@with_options(*EVERYWHERE, *MACHINE, SHARED_MEMORY, SECRET)
@click.option("--queue", metavar="NAME", required=True, help="Its compute environment says whether it is spot.")
@click.option("--job-role", metavar="ARN", help="What the run may do: reach the store.")
@click.option("--execution-role", metavar="ARN", help="Reads the image and the secrets.")
def render_aws_batch(
    run: str, queue: str, job_role: str | None, execution_role: str | None, secrets: tuple[str, ...], **given: Any
) -> None:
    """Print the parameters of RegisterJobDefinition and SubmitJob for RUN (a RUN.yaml or a run folder)."""
    from job.deploy.aws_batch import requests
    from job.deploy.cloud_options import variables
    from job.deploy.cloud_values import IN_A_SECRET

    _print_json(
        requests(*_run(run, IN_A_SECRET, variables("--secret", secrets), **given), queue, job_role, execution_role)
    )


@click.command("gcp-batch")
@click.argument("run")
@with_options(*EVERYWHERE, *MACHINE, SHARED_MEMORY, SECRET, SPOT, DISK)
@click.option("--machine-type", metavar="NAME", required=True, help="Like a3-highgpu-8g.")
@click.option("--accelerator", metavar="NAME", help="Where the machine type has none of its own, like nvidia-tesla-t4.")
@click.option("--service-account", metavar="EMAIL")
def render_gcp_batch(
    run: str,
    machine_type: str,
    accelerator: str | None,
    service_account: str | None,
    secrets: tuple[str, ...],
    **given: Any,
) -> None:
    """Print the Google Cloud Batch job of RUN (a RUN.yaml or a run folder)."""
    from job.deploy.cloud_options import variables
    from job.deploy.cloud_values import IN_A_SECRET
    from job.deploy.gcp_batch import job

    _print_json(
        job(
            *_run(run, IN_A_SECRET, variables("--secret", secrets), **given), machine_type, accelerator, service_account
        )
    )


@click.command("azure-ml")
@click.argument("run")
@with_options(*EVERYWHERE, SHARED_MEMORY, SPOT)
@click.option("--compute", metavar="NAME", help="A cluster.")
@click.option("--instance-type", metavar="NAME", help="Of a serverless job, instead of a cluster.")
@click.option("--credentials", metavar="ASSET", help="A file like ~/.aws/credentials in a datastore: azureml:NAME:1.")
def render_azure_ml(
    run: str, compute: str | None, instance_type: str | None, credentials: str | None, **given: Any
) -> None:
    """Print the Azure ML command job of RUN (a RUN.yaml or a run folder)."""
    from job.deploy.azure_ml import IN_A_FILE, command_job
    from job.deploy.manifest import document

    click.echo(document(command_job(*_run(run, IN_A_FILE, **given), compute, instance_type, credentials)), nl=False)


@click.command("skypilot")
@click.argument("run")
@with_options(*EVERYWHERE, *MACHINE, SPOT, DISK)
@click.option(
    "--secret", "secrets", metavar="NAME", multiple=True, help="A variable; its value: sky jobs launch --secret."
)
@click.option("--accelerator", metavar="NAME", help="A kind of GPU, like H100.")
@click.option("--infra", metavar="CLOUD[/REGION]", help="Where; default: where it is cheapest.")
def render_skypilot(
    run: str, accelerator: str | None, infra: str | None, secrets: tuple[str, ...], **given: Any
) -> None:
    """Print the SkyPilot task of RUN (a RUN.yaml or a run folder)."""
    from job.deploy.cloud_options import names
    from job.deploy.manifest import document
    from job.deploy.skypilot import task

    handed, containers = _run(run, "--secret NAME", names(secrets), **given)
    click.echo(document(task(handed, containers, accelerator, infra)), nl=False)


VERBS = (render_aws_batch, render_gcp_batch, render_azure_ml, render_skypilot)


def _run(
    run: str,
    instead: str,
    secrets: dict[str, str] | None = None,
    *,
    sets: tuple[str, ...],
    environment: tuple[str, ...],
    gpus_per_node: int | None = None,
    **given: Any,
) -> "tuple[HandedOver, Containers]":
    """`instead`: how the service is given what --env is refused. Raises: ConfigError."""
    from job.deploy.cloud_options import variables
    from job.deploy.cloud_values import Containers, checked

    visible, hidden = variables("--env", environment), secrets or {}
    handed, gpus = run_in_containers(run, sets, visible, {*visible, *hidden}, gpus_per_node)
    containers = Containers(gpus_per_node=gpus, environment=visible, secrets=hidden, **given)
    return handed, checked(handed, containers, instead)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
