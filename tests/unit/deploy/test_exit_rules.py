"""One table of exit codes: Kubernetes, a JobSet, Slurm's script, AWS Batch, Google's Batch and SkyPilot all follow it.

Each scheduler's own rules are read back from what is rendered, and followed as that scheduler would.
"""

import subprocess

import pytest

from job.deploy import kubernetes_policy, skypilot
from job.deploy.aws_batch import evaluate_on_exit
from job.deploy.cloud_values import Containers
from job.deploy.gcp_batch import lifecycle_policies
from job.deploy.rules import ANY_OTHER, RULES, Rule
from job.deploy.slurm import Batch, script
from job.errors import ExitCode
from tests.manifests import Object, handed, rendered, the

OTHERS = (1, 2, 66, 70, 126, 127, 134, 137, 139, 143, 255)  # what shells, Python and signals leave
CODES = sorted({*map(int, RULES), *OTHERS})
FAILURES = [code for code in CODES if code != 0]


def rule(code: int) -> Rule:
    return RULES[ExitCode(code)] if code in {*map(int, RULES)} else ANY_OTHER


def kubernetes(code: int, policy: Object, conditions: tuple[str, ...] = ()) -> str:
    """Source: kubernetes, pkg/controller/job/pod_failure_policy.go: the first rule that matches."""
    for found in policy["rules"]:
        if any(condition["type"] in conditions for condition in found.get("onPodConditions", ())):
            return str(found["action"])
        codes = found.get("onExitCodes")
        if codes and (code in codes["values"]) == (codes["operator"] == "In") and code != 0:
            return str(found["action"])
    return "Count"


def aws(code: int | None) -> str:
    """Source: AWS Batch API reference, EvaluateOnExit: the first that matches; else the job is retried."""
    for condition in evaluate_on_exit():
        pattern = condition["onExitCode"]
        same = str(code).startswith(pattern[:-1]) if pattern.endswith("*") else str(code) == pattern
        if code is not None and same:
            return str(condition["action"])
    return "RETRY"


def google(code: int) -> str:
    """Source: google/cloud/batch/v1/task.proto, LifecyclePolicy."""
    (policy,) = lifecycle_policies()
    named = code in policy["actionCondition"]["exitCodes"]
    return "FAIL" if named == (policy["action"] == "FAIL_TASK") else "RETRY"


def slurm(code: int) -> Rule:
    """The script's last `case`, followed by bash; what it calls there only says its name."""
    case = script(Batch()).rsplit("\ncase $code in", 1)[1]
    says = {"stopped": "again", "counted": "counted", "elsewhere": "elsewhere", "leave": '"$1"'}
    stubs = "".join(f"{name}() {{ echo {said}; exit; }}\n" for name, said in says.items())
    text = f"command_not_found_handle() {{ :; }}\nrm() {{ :; }}\n{stubs}code=$1 reason=r\ncase $code in{case}"
    done = subprocess.run(["bash", "-c", text, "bash", str(code)], capture_output=True, text=True, timeout=30)
    said = done.stdout.strip()
    return Rule(said) if said in {*Rule} else Rule.DONE if said == "the run is finished" else Rule.NEVER


@pytest.mark.parametrize("code", FAILURES)
def test_every_scheduler_does_what_the_table_says(code: int) -> None:
    expected, again = rule(code), rule(code) is not Rule.NEVER
    assert slurm(code) is expected
    # 76 has no rule in Kubernetes: it is counted, and the pod that follows finds the run finished or busy.
    here = Rule.COUNTED if code == ExitCode.FENCED else expected
    acts = {Rule.AGAIN: "Ignore", Rule.NEVER: "FailJob", Rule.COUNTED: "Count", Rule.ELSEWHERE: "Count"}
    for policy in (kubernetes_policy.pod_failure_policy(), the(rendered(nodes=2), "Job")["spec"]["podFailurePolicy"]):
        assert kubernetes(code, policy) == acts[here]
        assert kubernetes(code, policy, ("DisruptionTarget",)) == "Ignore"
    assert aws(code) == ("RETRY" if again else "EXIT")
    assert google(code) == ("RETRY" if again else "FAIL")
    recovery = skypilot.task(handed(), Containers("i:1"), "H100", None)["resources"]["job_recovery"]
    assert (code in recovery["recover_on_exit_codes"]) == (expected is Rule.AGAIN)
    assert recovery["max_restarts_on_errors"] == 3


def test_a_finished_run_is_done_everywhere() -> None:
    assert slurm(0) is Rule.DONE and kubernetes(0, kubernetes_policy.pod_failure_policy()) == "Count"
    assert all(0 not in found["onExitCodes"]["values"] for found in kubernetes_policy.pod_failure_policy()["rules"][1:])


def test_a_reclaimed_machine_is_no_reason_to_end_a_job() -> None:
    assert aws(None) == "RETRY"  # Host EC2 (instance i-...) terminated: there is no exit code
    assert google(50001) == "RETRY"  # source: Batch, reserved exit codes, VM preemption
    assert kubernetes(137, kubernetes_policy.pod_failure_policy(), ("DisruptionTarget",)) == "Ignore"


def test_five_conditions_of_aws_end_no_code_wrongly_but_those_that_nobody_leaves_with() -> None:
    ended = {code for code in range(1, 256) if aws(code) == "EXIT"}
    assert ended - {int(code) for code, found in RULES.items() if found is Rule.NEVER} == {7, 72, 79}
    assert len(evaluate_on_exit()) <= 5


def test_a_jobsets_gang_ends_where_its_job_fails_at_once_and_begins_again_otherwise() -> None:
    policy = the(rendered(nodes=2, jobset=True), "JobSet")["spec"]["failurePolicy"]
    assert [(found["action"], found["onJobFailureReasons"]) for found in policy["rules"]] == [
        ("FailJobSet", ["PodFailurePolicy"])
    ]
