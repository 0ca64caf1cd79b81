"""The forms of Kubernetes' names, labels and image references.

Sources: k8s.io/apimachinery, pkg/util/validation; github.com/distribution/reference, the grammar in reference.go.
"""

import re

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
NAME_LENGTH, LABEL_LENGTH = 253, 63
_WORD = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
LABEL_VALUE = re.compile(f"({_WORD})?", re.ASCII)
LABEL_KEY = re.compile(rf"({_DOMAIN}/)?{_WORD}", re.ASCII)
EXTENDED_RESOURCE = re.compile(rf"{_DOMAIN}/{_WORD}", re.ASCII)  # like nvidia.com/gpu
# A registry, which has a dot, a port or is localhost, or else is the first part of a path; a path; tag and digest.
_HOST = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
IMAGE = re.compile(
    rf"({_HOST}(\.{_HOST})*(:\d+)?/)?{_PART}(/{_PART})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?", re.ASCII
)
GENERATED_LABELS = (  # of a job's pods, which its controller sets
    "job-name",
    "controller-uid",
    "batch.kubernetes.io/job-name",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
)


def is_name(text: str, longest: int = NAME_LENGTH) -> bool:
    """A DNS subdomain; with 63 as the `longest` a DNS label."""
    return bool(NAME.fullmatch(text)) and len(text) <= longest and (longest > LABEL_LENGTH or "." not in text)
