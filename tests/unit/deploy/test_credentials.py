"""What looks like a credential is found by name or form; what a config is full of is let be."""

from pathlib import Path

import pytest

from job import recipes
from job.deploy.credentials import faults_of_text, holds_credential

KEY = "wJalrXUtnFEMI"
HEX = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    "text",
    [
        f"secret_access_key: {KEY}",
        f"storage: {{b: {{secret_key: {KEY}}}}}",
        f"AWS_SECRET_ACCESS_KEY={KEY}",
        "endpoint: https://me:pass@s3.example.com",
        "key: AKIAABCDEFGHIJKLMNOP",
        "# hf_abcdefghijklmnopqrstuvwxyz0123456789",
        "a: ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "-----BEGIN RSA PRIVATE KEY-----",
        "train: https://h/x?X-Amz-Signature=0123456789abcdef0123456789abcdef",
        f"wandb: {HEX}",
        "password: x",
        f"# AWS_SECRET_ACCESS_KEY={KEY}",
        f'samples.prompts=["aws_secret_access_key={KEY}"]',
        f"DB_PWD={KEY}",
        f"AccountKey={KEY}",
        "key: sk-proj-abcdefghijklmnopqrstuvwxyz",
        f"secret: $2b$12${KEY}",
        f"password: ~{KEY}",
        f"api_key: null{KEY}",
        f"aws_secret_access_key: |\n  {KEY}",
    ],
)
def test_a_credential_is_found_and_not_repeated(text: str) -> None:
    found = list(faults_of_text(text))
    assert found and KEY not in " ".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "train: {token_budget: 8192}",
        "trl: {eos_token: <end>, pad_token: <pad>}",
        "model: {add_tokens: [<a>], tokenizer: s3://b/t}",
        "HF_TOKEN: ${HF_TOKEN}",
        "trl: {hub_token: null}",
        "model: {hub_token: ${HF_TOKEN}}",
        "token: ~",
        "endpoint: https://s3.example.com:9000",
        f"base: hf://org/name@{HEX}",
        "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/token",
        "max_new_tokens: 64",
        "author: me",
        "# The base's tokens: see above. No secrets here: they are elsewhere",
        "base: hf://org/sk-learned-model-of-mine",
    ],
)
def test_what_is_none_is_let_be(text: str) -> None:
    assert list(faults_of_text(text)) == []


def test_a_variable_is_known_by_its_name_even_where_its_value_looks_harmless() -> None:
    for name in (
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "HF_TOKEN",
        "WANDB_API_KEY",
        "DB_PASSWORD",
        "AWS_SESSION_TOKEN",
    ):
        assert holds_credential(name) and list(faults_of_text("x", name)), name
    for name in (
        "AWS_PROFILE",
        "AWS_ENDPOINT_URL",
        "HF_HUB_OFFLINE",
        "TOKENIZERS_PARALLELISM",
        "NCCL_DEBUG",
        "HF_TOKEN_PATH",
    ):
        assert not holds_credential(name), name


def test_the_recipes_hold_none() -> None:
    for folder in recipes.__path__:
        for path in Path(folder).glob("*.yaml"):
            assert list(faults_of_text(path.read_text(encoding="utf-8"))) == []
