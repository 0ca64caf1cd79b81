"""The least an S3 policy has to allow for a run, computed from what the code calls; nothing is asked of the store."""

from typing import Any

READ_AND_WRITE = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]


def run_policy(uri: str, encryption: dict[str, str] | None = None, partition: str = "aws") -> dict[str, Any]:
    """The IAM policy for a run folder at `uri` ("s3://bucket/prefix"), as JSON.

    `encryption`: the arguments of each write (ServerSideEncryption, SSEKMSKeyId); `partition`: aws, aws-cn, aws-us-gov.
    Heads are s3:GetObject; the parts and the end of a multipart upload are s3:PutObject. With a KMS key, the parts of
    an upload are read back when it is completed, hence kms:Decrypt.
    """
    bucket, _, prefix = uri.removeprefix("s3://").strip("/").partition("/")
    arn = f"arn:{partition}:s3:::{bucket}"
    objects = f"{arn}/{prefix}/*" if prefix else f"{arn}/*"
    listing: dict[str, Any] = {"Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": [arn]}
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": [f"{prefix}/*"]}}
    statements = [
        listing,
        {"Sid": "ReadAndWrite", "Effect": "Allow", "Action": READ_AND_WRITE, "Resource": [objects]},
        {"Sid": "PruneOptional", "Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [objects]},
    ]
    if (encryption or {}).get("ServerSideEncryption", "").startswith("aws:kms"):
        statements.append(_key_statement((encryption or {}).get("SSEKMSKeyId"), partition))
    return {"Version": "2012-10-17", "Statement": statements}


def _key_statement(key: str | None, partition: str) -> dict[str, Any]:
    statement: dict[str, Any] = {
        "Sid": "Encrypt",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
        "Resource": ["*"],
    }
    if key and key.startswith("arn:") and ":key/" in key:
        statement["Resource"] = [key]
    elif key and not key.startswith(("arn:", "alias/")):
        statement["Resource"] = [f"arn:{partition}:kms:*:*:key/{key}"]
    else:  # an alias or the bucket's default: policies name keys, so what may be done with them is bounded by who asks
        statement["Condition"] = {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com*"}}
    return statement
