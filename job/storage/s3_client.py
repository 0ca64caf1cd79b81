"""Clients for one bucket: credentials, endpoint, certificates and proxies of the standard AWS chain, on both planes."""

import os
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from job.errors import ConfigError, StorageError
from job.storage.store import BucketOptions

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 30
POOL_CONNECTIONS = 32

# Botocore's sessions and the making of clients are not safe for threads. A session is kept for each profile and AWS
# environment, because it keeps the parsed service models: the first client costs 0.2 CPU seconds, the next 0.01.
_lock = threading.Lock()
_sessions: dict[tuple[object, ...], Any] = {}


@dataclass(frozen=True)
class Clients:
    """Control: retries by itself (botocore's standard mode). Data: one try a request, as parts have a deadline."""

    control: Any
    data: Any
    endpoint: str


def make_clients(bucket: str, options: BucketOptions | None, attempts: int) -> Clients:
    """Raises StorageError for a profile that does not exist, ConfigError for an endpoint that is no URL."""
    import boto3
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    profile = options.profile if options else None
    with _lock:
        try:
            key = (profile, *sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "HOME"))))
            session = _sessions.get(key) or _sessions.setdefault(key, boto3.Session(profile_name=profile))
            control = _client(session, options, attempts)
            data = _client(session, options, 1)
        except ProfileNotFound as error:
            raise StorageError(
                f"bucket {bucket}: {error}; check storage.{bucket}.profile or AWS_PROFILE, and ~/.aws/config"
            ) from error
        except ValueError as error:
            raise ConfigError(
                f"bucket {bucket}: {error}; write storage.{bucket}.endpoint or AWS_ENDPOINT_URL as https://host:port"
            ) from error
        except BotoCoreError as error:
            raise StorageError(f"bucket {bucket}: the AWS settings of this machine cannot be used: {error}") from error
    return Clients(control, data, str(control.meta.endpoint_url))


def encryption(options: BucketOptions | None) -> dict[str, str]:
    """The arguments of each write. The key stands behind the mode ("aws:kms:KEYID"), or in `sse_kms_key_id`."""
    if options is None or not options.sse:
        return {}
    mode, key = options.sse, getattr(options, "sse_kms_key_id", None)
    for known in ("aws:kms:dsse", "aws:kms"):
        if mode.startswith(known + ":"):
            mode, key = known, mode.removeprefix(known + ":")
            break
        if mode == known:
            break
    return {"ServerSideEncryption": mode, **({"SSEKMSKeyId": key} if key else {})}


def _client(session: Any, options: BucketOptions | None, attempts: int) -> Any:
    from botocore.config import Config

    endpoint = options.endpoint if options else None
    client = session.client("s3", endpoint_url=endpoint, config=_config(attempts))
    chosen = (session._session.get_scoped_config().get("s3") or {}).get("addressing_style")
    if chosen or _is_aws(client.meta.endpoint_url):
        return client
    # Bucket names in host names need wildcard DNS and certificates, which few stores outside AWS have.
    return session.client(
        "s3", endpoint_url=endpoint, config=_config(attempts).merge(Config(s3={"addressing_style": "path"}))
    )


def _config(attempts: int) -> Any:
    from botocore.config import Config

    return Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        max_pool_connections=POOL_CONNECTIONS,
        # Checksums are asked for call by call: stores outside AWS refuse what botocore would send by itself.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
