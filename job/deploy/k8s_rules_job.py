"""What an API server refuses, or silently does otherwise, in a Job: each rule a function from parsed objects to faults.

Source: kubernetes, pkg/apis/batch/validation/validation.go, and the same faults held against an API server.
"""

from collections.abc import Callable, Iterator

from job.deploy.k8s_names import GENERATED_LABELS, LABEL_LENGTH
from job.deploy.k8s_objects import Objects, containers, dictionaries, dictionary, jobs

Rule = Callable[[Objects], Iterator[str]]
ENUMS = {
    "completionMode": ("NonIndexed", "Indexed"),
    "podReplacementPolicy": ("TerminatingOrFailed", "Failed"),
}
ACTIONS, OPERATORS = ("FailJob", "FailIndex", "Ignore", "Count"), ("In", "NotIn")
STATUSES = ("True", "False", "Unknown")


def never_restarts_in_place(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        policy = job.pod.get("restartPolicy")
        if policy not in ("Never", "OnFailure"):
            yield f"{job.where}: restartPolicy is {policy}: a job's is Never"
        elif policy != "Never" and "podFailurePolicy" in job.spec:
            yield f"{job.where}: restartPolicy is {policy}: with podFailurePolicy it is Never"


def no_selector(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        if "selector" in job.spec or job.spec.get("manualSelector"):
            yield f"{job.where}: selector: the server makes it"


def generated_labels_are_left_alone(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for label in sorted({*dictionary(job.spec, "template", "metadata", "labels")}.intersection(GENERATED_LABELS)):
            yield f"{job.where} pods: label {label}: the job's controller sets it"


def failure_rules_are_well_formed(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        names = {container.spec.get("name") for container in containers(job)}
        rules = dictionaries(dictionary(job.spec, "podFailurePolicy"), "rules")
        if "podFailurePolicy" in job.spec and not 0 < len(rules) <= 20:
            yield f"{job.where}: podFailurePolicy has {len(rules)} rules: there may be 1 to 20"
        for index, rule in enumerate(rules):
            where = f"{job.where}: podFailurePolicy.rules[{index}]"
            codes, conditions = dictionary(rule, "onExitCodes"), dictionaries(rule, "onPodConditions")
            if rule.get("action") not in ACTIONS:
                yield f"{where}.action is {rule.get('action')}: one of {', '.join(ACTIONS)}"
            if bool(codes) == bool(conditions):
                yield f"{where} has both onExitCodes and onPodConditions, or neither: it takes one"
            for condition in conditions:
                if condition.get("status") not in STATUSES or not condition.get("type"):
                    yield f"{where}.onPodConditions: a type, and a status that is one of {', '.join(STATUSES)}, as text"
            if codes:
                yield from (f"{where}.onExitCodes{fault}" for fault in _code_faults(codes, names))


def _code_faults(codes: dict[str, object], names: set[object]) -> Iterator[str]:
    values, operator = codes.get("values"), codes.get("operator")
    if operator not in OPERATORS:
        yield f".operator is {operator}: one of {', '.join(OPERATORS)}"
    if "containerName" in codes and codes["containerName"] not in names:
        yield f".containerName is {codes['containerName']}: there is no such container"
    if not isinstance(values, list) or not values or not all(type(value) is int for value in values):
        yield ".values: a list of numbers"
        return
    if operator == "In" and 0 in values:
        yield ".values has 0: that is success"
    if values != sorted({*values}) or len(values) > 255:
        yield ".values: each once, in rising order"


def interruptions_come_first(objects: Objects) -> Iterator[str]:
    """The first rule that matches holds: a preempted pod's exit code may be one that fails the job."""
    for job in jobs(objects):
        actions = [rule.get("action") for rule in dictionaries(dictionary(job.spec, "podFailurePolicy"), "rules")]
        failing = [index for index, action in enumerate(actions) if action in ("FailJob", "FailIndex")]
        if failing and "Ignore" in actions[failing[0] :]:
            yield f"{job.where}: podFailurePolicy: rules that ignore come before those that fail"


def replaces_only_what_failed(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        if "podFailurePolicy" in job.spec and job.spec.get("podReplacementPolicy", "Failed") != "Failed":
            yield f"{job.where}: podReplacementPolicy is Failed with podFailurePolicy"


def limits_per_index_are_of_indexed_jobs(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        rules = dictionaries(dictionary(job.spec, "podFailurePolicy"), "rules")
        if "backoffLimitPerIndex" in job.spec and job.spec.get("completionMode") != "Indexed":
            yield f"{job.where}: backoffLimitPerIndex is of jobs whose completionMode is Indexed"
        if any(rule.get("action") == "FailIndex" for rule in rules) and "backoffLimitPerIndex" not in job.spec:
            yield f"{job.where}: FailIndex needs backoffLimitPerIndex"
        if "maxFailedIndexes" in job.spec and "backoffLimitPerIndex" not in job.spec:
            yield f"{job.where}: maxFailedIndexes needs backoffLimitPerIndex"


def choices_are_spelled(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for field, known in ENUMS.items():
            if field in job.spec and job.spec[field] not in known:
                yield f"{job.where}: {field} is {job.spec[field]}: one of {', '.join(known)}"


def counts_fit(objects: Objects) -> Iterator[str]:
    for job in jobs(objects):
        for field in ("backoffLimit", "completions", "parallelism", "ttlSecondsAfterFinished", "activeDeadlineSeconds"):
            if field in job.spec and not _whole(job.spec[field]):
                yield f"{job.where}: {field} is {job.spec[field]}: a whole number, at least 0"
        if job.spec.get("completionMode") != "Indexed":
            continue
        completions, parallelism = job.spec.get("completions"), job.spec.get("parallelism")
        if not _whole(completions):
            yield f"{job.where}: completions: an Indexed job says how many"
        elif parallelism != completions:
            yield f"{job.where}: parallelism is {parallelism}: all {completions} nodes have to run at once"


def _whole(value: object) -> bool:
    return type(value) is int and value >= 0


def host_names_fit(objects: Objects) -> Iterator[str]:
    """An Indexed Job's pods are called by its name and their index, and a host name is one DNS label."""
    for job in jobs(objects):
        completions = job.spec.get("completions", 1)
        last = (completions if _whole(completions) else 1) - 1
        name = f"{job.name}-{last}" if job.spec.get("completionMode") == "Indexed" else job.name
        if len(name) > LABEL_LENGTH:
            yield f"{job.where}: {name} has {len(name)} letters: a host name has at most {LABEL_LENGTH}"


RULES: tuple[Rule, ...] = (
    never_restarts_in_place,
    no_selector,
    generated_labels_are_left_alone,
    failure_rules_are_well_formed,
    interruptions_come_first,
    replaces_only_what_failed,
    limits_per_index_are_of_indexed_jobs,
    choices_are_spelled,
    counts_fit,
    host_names_fit,
)
