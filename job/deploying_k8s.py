"""`render k8s` and `submit k8s`: a run's objects, printed, or given to a cluster by kubectl."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from job.argument import SETS, Decorated, with_options
from job.errors import ConfigError
from job.handing_over import run_in_containers

if TYPE_CHECKING:
    from job.deploy.kubernetes_values import Object


def several(*names: str, metavar: str, help: str | None = None) -> Callable[[Decorated], Decorated]:
    return click.option(*names, multiple=True, metavar=metavar, help=help)


OPTIONS = (
    SETS,
    click.option("--image", metavar="IMAGE", help="By tag, or by digest: NAME@sha256:...  [default: sft-job:VERSION]"),
    click.option("--nodes", type=click.IntRange(1, 10_000), default=1, show_default=True),
    click.option("--gpus-per-node", type=click.IntRange(min=0), help="[default: 1; 0 with parallel.device: cpu]"),
    click.option("--gpu-resource", metavar="NAME", default="nvidia.com/gpu", show_default=True),
    click.option("--cpus", metavar="N", default="8", show_default=True, help="Of a node; no limit."),
    click.option("--memory", metavar="SIZE", default="32Gi", show_default=True, help="Of a node."),
    click.option("--shm-size", "shared_memory", metavar="SIZE", default="8Gi", show_default=True, help="Of it."),
    click.option("--disk", metavar="SIZE", help="Of the node's, for all state.  [default: 100Gi]"),
    click.option("--cache-size", metavar="SIZE", help="A volume for all state instead, made and deleted with the pod."),
    click.option("--storage-class", metavar="NAME", help="Of that volume, like one of local NVMe disks."),
    several("--claim", "claims", metavar="NAME:PATH", help="A persistent volume claim that is there, mounted at PATH."),
    click.option("--retries", type=click.IntRange(0, 1000), default=6, show_default=True, help="Of failures, a node."),
    click.option("--namespace", metavar="NAME"),
    click.option("--queue", metavar="NAME", help="Kueue's local queue; the job is made suspended."),
    click.option("--jobset", is_flag=True, help="A JobSet, which starts all nodes again together."),
    click.option("--priority-class", metavar="NAME"),
    several("--pull-secret", "pull_secrets", metavar="NAME"),
    several("--secret", "secrets", metavar="NAME", help="One that is there; its keys become variables."),
    several("--env", "environment", metavar="NAME=VALUE", help="No credentials: those by --secret."),
    several("--label", "labels", metavar="NAME=VALUE", help="Of all objects and of the pods."),
    several("--annotation", "annotations", metavar="NAME=VALUE", help="Of the pods."),
    several("--node-selector", metavar="NAME=VALUE"),
    several("--toleration", "tolerations", metavar="KEY[=VALUE][:EFFECT]"),
    click.option("--service-account", metavar="NAME", help="One that is there; without it the run gets its own."),
    several("--service-account-annotation", "service_account_annotations", metavar="NAME=VALUE", help="Of its own."),
)


@click.command("k8s")
@click.argument("run")
@with_options(*OPTIONS)
def render_k8s(run: str, **given: Any) -> None:
    """Print the objects of RUN (a RUN.yaml or a run folder) for kubectl apply: checked, and without credentials."""
    from job.deploy.manifest import documents

    click.echo(documents(_objects(run, **given)), nl=False)


@click.command("k8s")
@click.argument("run")
@with_options(*OPTIONS)
@click.option("--context", metavar="NAME", help="Of kubectl's configuration.")
@click.option("--no-follow", is_flag=True, help="Leave as soon as the objects are made.")
@click.option("--dry-run", is_flag=True, help="Print the objects, as `render` does.")
def submit_k8s(run: str, context: str | None, no_follow: bool, dry_run: bool, **given: Any) -> None:
    """Give RUN (a RUN.yaml or a run folder) to a cluster by kubectl, and follow its log to its end.

    Leaves with the run's exit code. A job of the same name that is over is replaced: the run goes on.
    """
    from job.deploy.kubernetes_submit import Cluster, follow, hand_over
    from job.deploy.manifest import documents

    objects = _objects(run, **given)
    if dry_run:
        click.echo(documents(objects), nl=False)
        return
    if context == "":
        raise ConfigError("--context is empty: leave it out for kubectl's own")
    cluster = Cluster(context, given["namespace"])
    hand_over(cluster, objects)
    if not no_follow:
        follow(cluster, objects)


def _objects(
    run: str,
    sets: tuple[str, ...],
    image: str | None,
    gpus_per_node: int | None,
    disk: str | None,
    claims: tuple[str, ...],
    environment: tuple[str, ...],
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    node_selector: tuple[str, ...],
    tolerations: tuple[str, ...],
    service_account_annotations: tuple[str, ...],
    **given: Any,
) -> "list[Object]":
    """Raises: ConfigError for what is asked for wrongly, and where a rule finds a fault."""
    from job.deploy import kubernetes
    from job.deploy.k8s_rules import refuse_faults
    from job.deploy.kubernetes_options import checked, image_reference, pairs, toleration
    from job.deploy.kubernetes_values import DISK, IMAGE, Pods

    mounted, variables = pairs("--claim", claims, ":"), pairs("--env", environment)
    known = None if given["secrets"] else variables
    handed, gpus = run_in_containers(run, sets, variables, known, gpus_per_node, (*mounted.values(),))
    if disk is not None and given["cache_size"] is not None:
        raise ConfigError("--cache-size is in place of --disk: give one of them")
    pods = Pods(
        image=IMAGE if image is None else image_reference(image),
        gpus_per_node=gpus,
        disk=DISK if disk is None else disk,
        grace_seconds=handed.grace_seconds,
        claims=mounted,
        environment=variables,
        labels=pairs("--label", labels),
        annotations=pairs("--annotation", annotations),
        node_selector=pairs("--node-selector", node_selector),
        tolerations=tuple(toleration(text) for text in tolerations),
        service_account_annotations=pairs("--service-account-annotation", service_account_annotations),
        **given,
    )
    objects = kubernetes.objects(handed, checked(pods))
    refuse_faults(objects)
    return objects
