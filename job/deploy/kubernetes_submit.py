"""A run given to a cluster by kubectl, and followed: a pod that is preempted has a successor, whose log goes on.

Only what kubectl itself is configured for is used; no credentials are read or kept here.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from job.deploy.handed_over import NAME
from job.deploy.k8s_objects import Object, dictionaries, dictionary
from job.deploy.kubernetes_options import find
from job.deploy.kubernetes_pod import JOB_UID, JOBSET_UID
from job.deploy.manifest import documents
from job.deploy.rules import ANY_OTHER, RULES, Rule
from job.errors import ConfigError, JobError, Stopped, error_for

POLL_SECONDS = 5.0
LINES = 5  # of what kubectl says went wrong
TOLERATED = 60  # failures in a row to reach the cluster
INDEX = "batch.kubernetes.io/job-completion-index"
OVER = ("Complete", "Failed", "Completed")  # conditions of a Job's or JobSet's end


@dataclass(frozen=True)
class Cluster:
    """As kubectl knows it."""

    context: str | None = None
    namespace: str | None = None

    def command(self, *words: str) -> list[str]:
        chosen = {"--context": self.context, "--namespace": self.namespace}
        return ["kubectl", *(f"{option}={value}" for option, value in chosen.items() if value), *words]

    def ask(self, *words: str, given: str | None = None) -> str:
        """What kubectl prints. Raises: ConfigError where it is missing, JobError with its last line where it fails."""
        try:
            done = subprocess.run(self.command(*words), input=given, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise ConfigError("there is no kubectl here: install it, or use `sft-job render k8s`") from None
        if done.returncode:
            for line in done.stdout.splitlines():  # what was done before it failed
                _say(line)
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()][:LINES]
            raise JobError(f"kubectl {words[0]}: {'; '.join(said) or f'exit code {done.returncode}'}")
        return done.stdout

    def get(self, *words: str) -> Object:
        """Empty where there is none."""
        text = self.ask("get", *words, "--ignore-not-found", "--output=json")
        try:
            found: Any = json.loads(text) if text.strip() else {}
        except ValueError:
            raise JobError(f"kubectl get: no JSON, but {text.strip().splitlines()[0]!r}") from None
        return found if isinstance(found, dict) else {}


def hand_over(cluster: Cluster, objects: Sequence[Object]) -> None:
    """A job that is over would stay as it is: it is deleted first, so that its run goes on. One that is under way is
    let be: its name says that nothing in it would change, but a queue that started it would stop it.

    Raises: ConfigError, with what kubectl said, where the cluster did not take it.
    """
    try:
        _hand_over(cluster, objects)
    except JobError as error:
        raise ConfigError(f"not submitted: {error}") from error


def _hand_over(cluster: Cluster, objects: Sequence[Object]) -> None:
    kind, name = _job(objects)
    before = cluster.get(kind, name)
    if before and not (how := ended(before)):
        return _say(f"{kind}/{name} is there already")
    if before:
        _say(f"{kind}/{name} is over ({how}): it is made anew, and the run goes on")
        cluster.ask("delete", kind, name, "--wait=true")
    for line in cluster.ask("apply", "--filename=-", given=documents(objects)).splitlines():
        _say(line)
    return None


def follow(cluster: Cluster, objects: Sequence[Object]) -> None:
    """Until the job is over. Raises: the error that the run left with; Stopped when interrupted here."""
    kind, name = _job(objects)
    shown: dict[str, str] = {}  # until when a pod's log was shown
    said, failures = "", 0
    try:
        while True:
            try:
                job, leading = _look(cluster, kind, name)
                failures = 0
            except JobError as error:
                failures += 1
                if failures > TOLERATED:
                    raise
                _say(str(error))
                time.sleep(POLL_SECONDS)
                continue
            if not job:
                raise JobError(f"{kind}/{name} is gone: somebody deleted it; the last commit stands")
            pods = [pod for pod in leading if _phase(pod) in ("Running", "Succeeded", "Failed")]
            unseen = next((pod for pod in pods if pod["metadata"]["uid"] not in shown), None)
            if unseen is not None:
                _say(f"{unseen['metadata']['name']}:")
                _show(cluster, unseen, shown)
                continue
            if ended(job):
                return _finish(cluster, kind, name, job)
            running = [pod for pod in pods if _phase(pod) == "Running"]
            if running:  # the connection broke, or the pod is just ending
                _show(cluster, running[-1], shown)
            elif (waiting := _waiting(job, leading)) != said:
                _say(said := waiting)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        _say(f"it runs on; to stop it: {' '.join(cluster.command('delete', kind, name))}")
        raise Stopped("no longer followed") from None


def ended(job: Object) -> str | None:
    """How; None: it is not over."""
    for condition in dictionaries(dictionary(job, "status"), "conditions"):
        if condition.get("type") in OVER and condition.get("status") == "True":
            return str(condition["type"]).removesuffix("d") if condition["type"] == "Completed" else condition["type"]
    return None


def _job(objects: Sequence[Object]) -> tuple[str, str]:
    kind = "jobset" if any(value["kind"] == "JobSet" for value in objects) else "job"
    return kind, find(objects, "Job", "JobSet")["name"]


def _look(cluster: Cluster, kind: str, name: str) -> tuple[Object, list[Object]]:
    """(the job, empty where it is gone; the pods of its node 0, the oldest first)."""
    job = cluster.get(kind, name)
    pods = _pods(cluster, kind, job) if job else []
    first = [pod for pod in pods if dictionary(pod, "metadata", "labels").get(INDEX, "0") == "0"]
    return job, sorted(first, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))


def _pods(cluster: Cluster, kind: str, job: Object) -> list[Object]:
    """Of this very job: one of the same name, deleted just now, may have left some."""
    label = JOB_UID if kind == "job" else JOBSET_UID
    return dictionaries(cluster.get("pods", f"--selector={label}={job['metadata']['uid']}"), "items")


def _phase(pod: Object) -> str:
    return str(dictionary(pod, "status").get("phase"))


def _show(cluster: Cluster, pod: Object, shown: dict[str, str]) -> None:
    """From where it was shown to last. A log that ends is no end of the job: the job itself tells that."""
    uid = pod["metadata"]["uid"]
    since = [f"--since-time={shown[uid]}"] if uid in shown else []
    command = cluster.command("logs", "--follow", f"--container={NAME}", *since, pod["metadata"]["name"])
    subprocess.run(command, check=False)
    shown[uid] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _waiting(job: Object, pods: list[Object]) -> str:
    """For what, as far as the cluster says: an image that cannot be pulled is waited for as long as anything else."""
    if dictionary(job, "spec").get("suspend"):
        return "waiting for the queue to start the job"
    reasons = [_reason(pod) for pod in pods if _phase(pod) == "Pending"]
    return f"waiting for a pod to start{reasons[-1] if reasons else ''}"


def _reason(pod: Object) -> str:
    status = dictionary(pod, "status")
    held = [dictionary(found, "state", "waiting") for found in dictionaries(status, "containerStatuses")]
    held += [found for found in dictionaries(status, "conditions") if found.get("status") == "False"]
    told = next((found for found in held if found.get("reason")), None)
    return f": {told['reason']}: {told.get('message') or 'no more is said'}" if told else ""


def _finish(cluster: Cluster, kind: str, name: str, job: Object) -> None:
    """Raises: the error whose exit code and message the pod that failed last left."""
    how = ended(job)
    if how != "Failed":
        _say(f"{kind}/{name}: {how}")
        return
    ends = [_end(pod) for pod in _pods(cluster, kind, job)]
    failed = sorted((end for end in ends if end and end.get("exitCode")), key=_tells)
    if not failed:
        raise JobError(f"{kind}/{name} failed, and no pod is left to say why")
    lines = str(failed[-1].get("message") or "").strip().splitlines()
    raise error_for(int(failed[-1]["exitCode"]), (lines[-1] if lines else "failed").removeprefix(f"{NAME}: "))


def _tells(end: Object) -> tuple[int, str]:
    """Greatest for the end that says most: a Job that fails stops its other pods, which leave after the culprit."""
    rule = {int(code): rule for code, rule in RULES.items()}.get(int(end["exitCode"]), ANY_OTHER)
    return (Rule.AGAIN, ANY_OTHER, Rule.ELSEWHERE, Rule.NEVER).index(rule), str(end.get("finishedAt"))


def _end(pod: Object) -> Object:
    for status in dictionaries(dictionary(pod, "status"), "containerStatuses"):
        if status.get("name") == NAME:
            return dictionary(status, "state", "terminated")
    return {}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
