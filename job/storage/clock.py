"""How far this machine's clock is from an S3 endpoint's, and how soon that answers: read off the Date of one answer.

A run compares no clocks. But a signed request is refused when its time is a quarter of an hour off, and the events of
two machines whose clocks disagree are hard to read side by side.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from job.storage.finding import Finding, Lacking, Probe, Status
from job.storage.s3_client import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, make_clients
from job.storage.store import BucketOptions

REFUSED_SECONDS = 900.0  # S3 API reference, RequestTimeTooSkewed
WORTH_SAYING_SECONDS = 60.0
SLOW_SECONDS = 2.0

CLOCK = Probe(
    "the clocks agree",
    "requests are signed with a time that the store accepts",
    "set this machine's clock (chrony, systemd-timesyncd): the store refuses requests that are 15 minutes off",
)


def probe_clock(
    uri: str, buckets: Mapping[str, BucketOptions], clock: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Nothing where there was no answer with a date: other probes say why. Raises: as `make_clients`."""
    bucket = uri.removeprefix("s3://").partition("/")[0]
    began, on_the_way = clock(), time.monotonic()
    date = _date_of_an_answer(bucket, buckets)
    seconds = time.monotonic() - on_the_way
    if date is None:
        return
    yield clock_finding(clock_skew(date, began, began + seconds))
    seen = f"{seconds:.2f}s; time-outs: {CONNECT_TIMEOUT_SECONDS}s to connect, {READ_TIMEOUT_SECONDS}s to read"
    if seconds > SLOW_SECONDS:
        yield Finding("it answers soon", Status.WARNING, "slow: claims, heartbeats and commits wait as long", seen)
    else:
        yield Finding("it answers soon", Status.OK, "claims, heartbeats and commits cost little time", seen)


def clock_skew(date: str, sent: float, received: float) -> float | None:
    """Seconds that this clock is ahead of the one that wrote `date`, which was at some time in between, cut to whole
    seconds; 0 where both may agree. None for what is no date."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return None
    if sent > theirs + 1:
        return sent - (theirs + 1)
    return min(0.0, received - theirs)


def clock_finding(skew: float | None) -> Finding:
    if skew is None:
        return Finding(CLOCK.name, Status.NOT_TRIED, "the store's answer has no date that can be read")
    seen = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the store" if abs(skew) >= 1 else ""
    if abs(skew) >= REFUSED_SECONDS:
        return CLOCK.lacking(Lacking(seen))
    if abs(skew) >= WORTH_SAYING_SECONDS:
        return Finding(CLOCK.name, Status.WARNING, CLOCK.without, seen)
    return CLOCK.ok(seen)


def _date_of_an_answer(bucket: str, buckets: Mapping[str, BucketOptions]) -> str | None:
    """A refusal has a date too."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = make_clients(bucket, buckets.get(bucket), 1).control
    answer: dict[str, Any]
    try:
        answer = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = dict(error.response)
    except BotoCoreError:
        return None
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    date = headers.get("date")
    return str(date) if date else None
