"""The pod of a run: no root, a read-only root filesystem, no token, nothing of the host's, every disk bounded."""

from job.deploy.handed_over import NAME, HandedOver
from job.deploy.kubernetes_values import CONFIG, LEADER_PORT, SHARED_MEMORY, STATE, USER, Object, Pods
from job.deploy.quantities import whole_gib

GRACE_MARGIN_SECONDS = 30  # after the last commit: the end record, and the container's own end
TEMPORARY, TEMPORARY_SIZE = "/tmp", "10Gi"
LOGS_GIB = 2  # what the kubelet keeps of the log counts as the pod's disk
TERMINATION_LOG = "/dev/termination-log"  # Kubernetes' own default
JOB_UID, JOB_NAME = "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"  # labels of a job's pods
JOBSET_UID = "jobset.sigs.k8s.io/jobset-uid"  # of a JobSet's, whose jobs are made anew when it restarts


def pod_template(run: HandedOver, pods: Pods, config_map: str, account: str, service: str | None) -> Object:
    """`service`: whose name stands behind the pods' host names, where there are several nodes."""
    spec: Object = {
        "restartPolicy": "Never",
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": pods.grace_seconds + GRACE_MARGIN_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(run, pods, service)],
        "volumes": _volumes(run, pods, config_map),
    }
    if service and not pods.jobset:
        spec["subdomain"] = service
    if pods.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pods.pull_secrets]
    if pods.priority_class:
        spec["priorityClassName"] = pods.priority_class
    if pods.node_selector:
        spec["nodeSelector"] = dict(pods.node_selector)
    if pods.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in pods.tolerations]
    metadata: Object = {"labels": {**pods.labels, "app.kubernetes.io/name": NAME}}
    if pods.annotations:
        metadata["annotations"] = dict(pods.annotations)
    return {"metadata": metadata, "spec": spec}


def _container(run: HandedOver, pods: Pods, service: str | None) -> Object:
    container: Object = {
        "name": NAME,
        "image": pods.image,
        "args": [escaped(word) for word in run.words(f"{CONFIG}/run.yaml")],
        "env": _environment(pods, service),
        "resources": _resources(pods),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the log's last line is the cause as well
        "volumeMounts": [
            *([{"name": "config", "mountPath": CONFIG, "readOnly": True}] if run.text is not None else []),
            {"name": "state", "mountPath": STATE},
            {"name": "temporary", "mountPath": TEMPORARY},
            {"name": "shared-memory", "mountPath": SHARED_MEMORY},
            *({"name": f"claim-{at}", "mountPath": path} for at, path in enumerate(pods.claims.values())),
        ],
    }
    if pods.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in pods.secrets]
    if service:
        container["ports"] = [{"name": "leader", "containerPort": LEADER_PORT}]
    return container


def _environment(pods: Pods, service: str | None) -> list[Object]:
    """Kubernetes puts in what $(NAME) names, where that stands before."""
    uid = JOBSET_UID if pods.jobset else JOB_UID
    ours: list[Object] = [
        {"name": "SFT_JOB_HOME", "value": STATE},
        {"name": "SFT_JOB_GRACE", "value": str(pods.grace_seconds)},
        {"name": "SFT_JOB_TERMINATION_LOG", "value": TERMINATION_LOG},
        {"name": "SFT_JOB_KUBERNETES_JOB", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{uid}']"}}},
    ]
    if service:
        ours += [
            {"name": "SFT_JOB_NODES", "value": str(pods.nodes)},
            {"name": "POD_JOB", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{JOB_NAME}']"}}},
            {"name": "POD_SUBDOMAIN", "value": service},
            {"name": "SFT_JOB_LEADER", "value": "$(POD_JOB)-0.$(POD_SUBDOMAIN)"},
        ]
    theirs = [{"name": name, "value": escaped(value)} for name, value in pods.environment.items()]
    return ours + theirs


def escaped(text: str) -> str:
    """Kubernetes reads $$ as $, and $(NAME) as a variable, in arguments and variables."""
    return text.replace("$", "$$")


def _resources(pods: Pods) -> Object:
    """Of the CPU there is no limit: what others leave idle may be used. GPUs cannot be shared, so both are the same."""
    state_gib = 0 if pods.cache_size else whole_gib(pods.disk)
    disk = f"{state_gib + whole_gib(TEMPORARY_SIZE) + LOGS_GIB}Gi"
    gpus = {pods.gpu_resource: str(pods.gpus_per_node)} if pods.gpus_per_node else {}
    limits = {"memory": pods.memory, "ephemeral-storage": disk, **gpus}
    return {"requests": {"cpu": pods.cpus, **limits}, "limits": limits}


def _volumes(run: HandedOver, pods: Pods, config_map: str) -> list[Object]:
    return [
        *([{"name": "config", "configMap": {"name": config_map}}] if run.text is not None else []),
        {"name": "state", **_state(pods)},
        {"name": "temporary", "emptyDir": {"sizeLimit": TEMPORARY_SIZE}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": pods.shared_memory}},
        *({"name": f"claim-{at}", "persistentVolumeClaim": {"claimName": name}} for at, name in enumerate(pods.claims)),
    ]


def _state(pods: Pods) -> Object:
    if not pods.cache_size:
        return {"emptyDir": {"sizeLimit": pods.disk}}
    claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": pods.cache_size}}}
    if pods.storage_class:
        claim["storageClassName"] = pods.storage_class
    return {"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}
