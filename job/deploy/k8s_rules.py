"""All rules over parsed manifests, whoever wrote them: a server would refuse some faults, and find others too late."""

from job.deploy import k8s_rules_job, k8s_rules_pod, k8s_rules_restricted, k8s_rules_whole
from job.deploy.k8s_objects import Objects
from job.errors import ConfigError

SEMANTIC = (*k8s_rules_whole.RULES, *k8s_rules_job.RULES, *k8s_rules_pod.RULES)
RESTRICTED = k8s_rules_restricted.RULES


def faults(objects: Objects) -> list[str]:
    return [fault for rule in (*SEMANTIC, *RESTRICTED) for fault in rule(objects)]


def refuse_faults(objects: Objects) -> None:
    """Raises: ConfigError, with the first fault and how many there are."""
    if found := faults(objects):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(f"{found[0]}{more}")
