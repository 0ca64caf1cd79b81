"""A run on Kubernetes, as values: a ConfigMap with RUN.yaml, a ServiceAccount, a Job, and for several nodes a Service.

All of a run's objects bear its job's name. Source: kubernetes.io/docs/concepts/workloads/controllers/job.
"""

from job.deploy.handed_over import NAME, HandedOver, job_name
from job.deploy.kubernetes_options import QUEUE_LABEL
from job.deploy.kubernetes_pod import JOB_NAME, pod_template
from job.deploy.kubernetes_policy import jobset_failure_policy, pod_failure_policy
from job.deploy.kubernetes_values import LEADER_PORT, Object, Pods

TTL_SECONDS = 7 * 24 * 3600  # how long a job that is over can be looked at
JOBSET_API = "jobset.x-k8s.io/v1alpha2"
REPLICATED = "node"  # the one kind of job in a JobSet


def objects(run: HandedOver, pods: Pods, name: str | None = None) -> list[Object]:
    """In the order in which they are to be made."""
    name = name or job_name(run, pods)
    account = pods.service_account or name
    found: list[Object] = []
    if pods.service_account is None:
        found.append({**_head("v1", "ServiceAccount", name, pods), "automountServiceAccountToken": False})
        if pods.service_account_annotations:
            found[-1]["metadata"]["annotations"] = dict(pods.service_account_annotations)
    if run.text is not None:
        found.append({**_head("v1", "ConfigMap", name, pods), "data": {"run.yaml": run.text}})
    if pods.jobset:
        return [*found, _jobset(run, pods, name, account)]
    if pods.nodes > 1:
        found.append(_service(pods, name))
    job = {**_head("batch/v1", "Job", name, pods), "spec": _job_spec(run, pods, name, account)}
    return [*found, _queued(job, pods)]


def _head(version: str, kind: str, name: str, pods: Pods) -> Object:
    metadata: Object = {"name": name, "labels": {**pods.labels, "app.kubernetes.io/name": NAME}}
    if pods.namespace:
        metadata["namespace"] = pods.namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _job_spec(run: HandedOver, pods: Pods, name: str, account: str) -> Object:
    several = pods.nodes > 1
    spec: Object = {
        # A node's failures are counted for all: when one crashes, the others may leave with its code.
        "backoffLimit": 0 if pods.jobset else pods.retries * pods.nodes,
        "podReplacementPolicy": "Failed",  # never two pods at once for one place
        "podFailurePolicy": pod_failure_policy(),
        "template": pod_template(run, pods, name, account, name if several else None),
    }
    if several:
        spec |= {"completionMode": "Indexed", "completions": pods.nodes, "parallelism": pods.nodes}
    if not pods.jobset:
        spec["ttlSecondsAfterFinished"] = TTL_SECONDS
    return spec


def _service(pods: Pods, name: str) -> Object:
    """Gives each pod its host name, before it is ready: they wait for each other to become so."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {JOB_NAME: name},
        "ports": [{"name": "leader", "port": LEADER_PORT}],
    }
    return {**_head("v1", "Service", name, pods), "spec": spec}


def _jobset(run: HandedOver, pods: Pods, name: str, account: str) -> Object:
    """Its controller makes the Service, under the JobSet's name."""
    template = {"spec": _job_spec(run, pods, name, account)}
    spec = {
        "replicatedJobs": [{"name": REPLICATED, "replicas": 1, "template": template}],
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": jobset_failure_policy(pods.retries),
        "ttlSecondsAfterFinished": TTL_SECONDS,
    }
    return _queued({**_head(JOBSET_API, "JobSet", name, pods), "spec": spec}, pods)


def _queued(job: Object, pods: Pods) -> Object:
    """Kueue starts what waits in its queue: jobs are made suspended."""
    if pods.queue:
        job["metadata"]["labels"][QUEUE_LABEL] = pods.queue
        job["spec"]["suspend"] = True
    return job
