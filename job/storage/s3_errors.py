"""What an S3 store or the way to it says, in one line each: not there, refused, or worth another try."""

from collections.abc import Iterator
from contextlib import contextmanager

from job.errors import ConfigError, JobError, StorageError
from job.storage.store import NotFound, Transient, Unreachable

_CREDENTIALS = {
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "TokenRefreshRequired", "RequestTimeTooSkewed", "AllAccessDisabled", "AccountProblem", "Forbidden", "NotSignedUp",
}  # fmt: skip
_PASSING = {
    "SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequests", "RequestTimeout",
    "InternalError", "ServiceUnavailable", "OperationAborted", "ConditionalRequestConflict", "BandwidthLimitExceeded",
}  # fmt: skip
# What was sent came damaged, or a multipart upload is not as it was left: it has to be sent again from its start.
_DAMAGED = {
    "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch",
    "NoSuchUpload", "InvalidPart", "EntityTooSmall",
}  # fmt: skip
# Answers of stores that do not know a checksum, a conditional write, or DeleteObjects without an MD5
_UNKNOWN = {
    "NotImplemented", "InvalidArgument", "InvalidRequest", "MissingContentLength", "MissingContentMD5",
    "InvalidDigest", "MalformedXML", "MethodNotAllowed", "MalformedTrailerError",
}  # fmt: skip


class Damaged(Transient):
    """The bytes that came are not those that were sent, here or there."""


@contextmanager
def s3_errors(operation: str, uri: str, bucket: str, endpoint: str) -> Iterator[None]:
    """Turns what boto3 and urllib3 raise into NotFound, Transient, Unreachable, ConfigError or StorageError."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        raise _answer(error, operation, uri, bucket, endpoint) from error
    except S3UploadFailedError as error:
        cause = error.__cause__ or error.__context__  # boto3 puts only its text into the new error
        if isinstance(cause, ClientError):
            raise _answer(cause, operation, uri, bucket, endpoint) from error
        raise StorageError(f"{operation} {uri}: {error}") from error
    except BotoCoreError as error:
        raise _way(error, operation, uri, bucket, endpoint) from error
    except (ResponseParserError, ValueError) as error:  # a number that is none
        raise Damaged(f"{operation} {uri}: the answer of {endpoint} makes no sense: {_line(error)[:200]}") from error
    except (HTTPError, ConnectionError, TimeoutError) as error:
        raise Unreachable(f"{operation} {uri}: the connection to {endpoint} broke: {_line(error)}") from error


def status_of(error: BaseException | None) -> tuple[str, int]:
    """(code, HTTP status) of a ClientError."""
    response = getattr(error, "response", None) or {}  # botocore's own errors have one that is None
    return str(response.get("Error", {}).get("Code", "")), int(
        response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def answered(error: StorageError) -> tuple[str, int]:
    """(code, HTTP status) of the answer that `error` was made of; ("", 0) where there was none."""
    cause = error.__cause__
    if cause is not None and not hasattr(cause, "response"):
        cause = cause.__context__
    return status_of(cause)


def unknown_to_store(error: StorageError, endpoint: str) -> bool:
    """Whether the store may just not know what it was asked with: worth another try without it."""
    code, status = answered(error)
    # Over https no body is hashed for the signature, so it is the framing of a trailing checksum that was not known.
    unframed = code == "XAmzContentSHA256Mismatch" and endpoint.startswith("https:")
    return code in _UNKNOWN or status in (405, 411, 501) or unframed


def passes(code: str) -> bool:
    """Whether an error of this code is worth another try."""
    return code in _PASSING


def missing_bucket(uri: str, bucket: str, endpoint: str) -> StorageError:
    return StorageError(
        f"bucket {bucket} does not exist at {endpoint}; check {uri}, and storage.{bucket}.endpoint or AWS_ENDPOINT_URL"
    )


def _answer(error: Exception, operation: str, uri: str, bucket: str, endpoint: str) -> JobError:
    code, status = status_of(error)
    said = _line(getattr(error, "response", {}).get("Error", {}).get("Message") or error)
    if code == "NoSuchBucket":
        return missing_bucket(uri, bucket, endpoint)
    if code in ("NoSuchKey", "NotFound", "404") or (status == 404 and code != "NoSuchUpload"):
        return NotFound(f"{uri} does not exist at {endpoint}; check the name")
    if code in _PASSING or status in (408, 409, 429, 500, 502, 503, 504):
        return Transient(f"{operation} {uri}: {endpoint} answered {status} {code}: {said}")
    if code in _DAMAGED:
        return Damaged(f"{operation} {uri}: {endpoint} answered {status} {code}: {said}")
    if code in _CREDENTIALS or status in (401, 403):
        return StorageError(
            f"{operation} {uri} was refused by {endpoint} ({code or status}: {said}); check the credentials "
            f"(AWS_ACCESS_KEY_ID or profile, expiry, this machine's clock) and that they may {operation} here; "
            "without s3:ListBucket a missing object is refused like this as well"
        )
    if status in (301, 307, 308) or code in ("PermanentRedirect", "IllegalLocationConstraintException"):
        return StorageError(
            f"{operation} {uri}: the bucket is in another region than asked ({said}); set AWS_DEFAULT_REGION"
        )
    return StorageError(f"{operation} {uri}: {endpoint} answered {status} {code}: {said}")


def _way(error: Exception, operation: str, uri: str, bucket: str, endpoint: str) -> JobError:
    """No answer at all: the network, the certificates, or this machine's settings."""
    from botocore import exceptions

    said = _line(error)
    if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in said:
        return StorageError(
            f"{operation} {uri}: the certificate of {endpoint} is not trusted; name its CA's file in AWS_CA_BUNDLE"
        )
    if isinstance(error, exceptions.ConnectionError | exceptions.HTTPClientError | exceptions.IncompleteReadError):
        return Unreachable(
            f"{operation} {uri}: {endpoint} cannot be reached; check the network, proxies and AWS_ENDPOINT_URL ({said})"
        )
    if isinstance(error, exceptions.FlexibleChecksumError):
        return Damaged(f"{operation} {uri}: the bytes that came are not those the store keeps the checksum of ({said})")
    if isinstance(error, exceptions.ParamValidationError):
        return ConfigError(f"{uri}: {said}")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.NoAuthTokenError
        | exceptions.TokenRetrievalError
        | exceptions.SSOError,
    ):
        return StorageError(
            f"{operation} {uri}: no credentials ({said}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            f"AWS_PROFILE or storage.{bucket}.profile, or give this machine a role"
        )
    return StorageError(f"{operation} {uri}: {said}")


def _line(error: object) -> str:
    return " ".join(str(error).split())
