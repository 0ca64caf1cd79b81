"""RUN as containers will read it, for the verbs that hand it to a scheduler which runs them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from job.argument import config_of
from job.errors import ConfigError

if TYPE_CHECKING:
    from job.deploy.handed_over import HandedOver


def run_in_containers(
    run: str,
    sets: tuple[str, ...],
    variables: Mapping[str, str],
    known: Collection[str] | None,
    gpus_per_node: int | None,
    shared: tuple[str, ...] = (),
) -> "tuple[HandedOver, int]":
    """What is handed over, and how many GPUs a node has. `variables`: those given for the containers; `known`: all
    that are set there, None where a secret may set any; `shared`: the folders that are mounted there.

    Raises: ConfigError.
    """
    from job.deploy.handed_over import SET_BY_IMAGE, handed_over, refuse_unknown
    from job.deploy.kubernetes_options import gpus_asked

    refuse_unknown(run, sets, known)
    config = config_of(run, sets, {**SET_BY_IMAGE, **variables})
    handed = handed_over(config, run, sets, shared)
    if gpus_per_node == 0 and config.parallel.device == "cuda":
        raise ConfigError("--gpus-per-node is 0, and parallel.device is cuda: give it one")
    if config.hooks is not None and known is not None and "SFT_JOB_ALLOW_CODE" not in known:
        raise ConfigError("hooks are code of your own: add --env SFT_JOB_ALLOW_CODE=1")
    return handed, gpus_asked(gpus_per_node, handed.on_cpu)
