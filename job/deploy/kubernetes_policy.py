"""The exit-code table as Kubernetes' rules: an interruption is no failure, what cannot pass ends the job at once."""

from job.deploy.handed_over import NAME
from job.deploy.kubernetes_values import Object
from job.deploy.rules import RULES, Rule
from job.errors import ExitCode

# The pod that replaces a fenced one finds the run finished or busy (77), or goes on with it: no rule, so it is counted.
COUNTED_HERE = (ExitCode.FENCED,)


def pod_failure_policy() -> Object:
    """The first rule that matches holds, so interruptions come first. What has no rule is counted by backoffLimit.

    A preempted or evicted pod has the condition DisruptionTarget, whatever its exit code; one that was deleted by hand
    has not, but leaves with 75.
    """
    again = sorted(int(code) for code, rule in RULES.items() if rule is Rule.AGAIN)
    never = sorted(int(code) for code, rule in RULES.items() if rule is Rule.NEVER and code not in COUNTED_HERE)
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": {"containerName": NAME, "operator": "In", "values": again}},
            {"action": "FailJob", "onExitCodes": {"containerName": NAME, "operator": "In", "values": never}},
        ]
    }


def jobset_failure_policy(retries: int) -> Object:
    """All nodes are started again together, and only when no pod of the last time is left."""
    return {
        "maxRestarts": retries,
        "restartStrategy": "BlockingRecreate",
        "rules": [{"name": "neverAgain", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
    }
