"""The policy names the actions that are used, on this bucket and prefix, and nothing else."""

from typing import Any

import pytest

from job.storage.policy import run_policy


def statement(policy: dict[str, Any], sid: str) -> dict[str, Any]:
    (found,) = [one for one in policy["Statement"] if one["Sid"] == sid]
    return dict(found)


def test_listing_is_allowed_below_the_prefix_only_and_objects_likewise() -> None:
    policy = run_policy("s3://bucket/runs/one/")
    listing = statement(policy, "List")
    assert listing["Resource"] == ["arn:aws:s3:::bucket"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["runs/one/*"]}}
    for sid in ("ReadAndWrite", "PruneOptional"):
        assert statement(policy, sid)["Resource"] == ["arn:aws:s3:::bucket/runs/one/*"]
    assert statement(policy, "PruneOptional")["Action"] == ["s3:DeleteObject"]
    assert not any("kms" in action for one in policy["Statement"] for action in one["Action"])


def test_a_run_at_the_top_of_a_bucket_needs_all_of_it() -> None:
    policy = run_policy("s3://bucket")
    assert "Condition" not in statement(policy, "List")
    assert statement(policy, "ReadAndWrite")["Resource"] == ["arn:aws:s3:::bucket/*"]


def test_the_partition_is_in_every_name() -> None:
    policy = run_policy("s3://b/r", {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "1-2"}, "aws-cn")
    assert all(name.startswith("arn:aws-cn:") for one in policy["Statement"] for name in one["Resource"])


@pytest.mark.parametrize(
    ("key", "resource", "bounded"),
    [
        ("arn:aws:kms:eu-west-1:1:key/1-2", "arn:aws:kms:eu-west-1:1:key/1-2", False),
        ("1-2", "arn:aws:kms:*:*:key/1-2", False),
        ("alias/runs", "*", True),
        (None, "*", True),
    ],
)
def test_encryption_with_a_key_needs_the_key(key: str | None, resource: str, bounded: bool) -> None:
    encryption = {"ServerSideEncryption": "aws:kms", **({"SSEKMSKeyId": key} if key else {})}
    allowed = statement(run_policy("s3://b/r", encryption), "Encrypt")
    assert allowed["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert allowed["Resource"] == [resource] and ("Condition" in allowed) == bounded


def test_encryption_without_a_key_of_ones_own_needs_nothing() -> None:
    assert run_policy("s3://b/r", {"ServerSideEncryption": "AES256"}) == run_policy("s3://b/r")
