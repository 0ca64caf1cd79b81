"""What looks like a credential, by its name or its form: none may stand in a manifest, whoever wrote it there."""

import re
from collections.abc import Iterator

HELD = re.compile(
    r"(?i)(secret|passw(or)?d|(?:^|_)pwd|passphrase|token|credential|api_?key|access_key|private_key|"
    r"account_?key|client_key|auth)(?:_|$)"
)
HARMLESS = re.compile(r"(?i)(_file|_path|_uri|_url|_budget|_endpoint|_timeout|_profile|_relative_uri)$|^no_|^automount")
WORDS = re.compile(r"(?i)(pad|eos|bos|unk|sep|cls|mask|stop|end|start|image)_token$")  # a tokenizer's own
FORMS = {
    "an AWS key": re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b"),
    "an OpenAI key": re.compile(r"\bsk-(?:proj-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{32,})"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^/\s:@\"']+:[^/\s:@\"']+@"),
    "a signature in a URL": re.compile(r"(?i)[?&](?:x-amz-signature|x-goog-signature|sig)=[\w%/+-]{16,}"),
    "a W&B key": re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"),
}
NEAR = re.compile(r"(?i)wandb|wb_")  # 40 hexadecimal digits are a commit's name as well: only beside such a word
ASSIGNED = re.compile(
    r"(?im)(?:^|(?<=[{,\[#]))\s*[\"']?([\w.-]*?)[\"']?\s*[:=]\s*(?:[|>][+-]?\s*\n\s*)?[\"']?([\[{]|[^\s#\"']+)"
)
REFERENCE = re.compile(r"\$\{\w+\}|\$\(\w+\)")
NO_VALUE = re.compile(r"(null|~)[,}\]]*|[\[{].*", re.I)  # a list or a mapping is looked at by its own lines


def faults_of_text(text: str, name: str = "") -> Iterator[str]:
    """What in a text, or in the value of a variable `name`, is a credential; it is not repeated. `${NAME}` is none."""
    if name and text and not REFERENCE.fullmatch(text) and holds_credential(name):
        yield "holds a credential; put it into a secret, and name that"
        return
    for what, form in FORMS.items():
        if form.search(text) and (what != "a W&B key" or NEAR.search(name) or NEAR.search(text)):
            yield f"holds {what}; put it into a secret, and name that"
    for key, value in ASSIGNED.findall(text):
        harmless = REFERENCE.fullmatch(value.rstrip(",}]") + "}" * value.startswith("${")) or NO_VALUE.fullmatch(value)
        if holds_credential(key.rsplit(".", 1)[-1]) and not harmless:
            yield f"{key} holds a credential; put it into a secret, and name that"


def holds_credential(name: str) -> bool:
    return bool(HELD.search(name)) and not HARMLESS.search(name) and not WORDS.search(name)
