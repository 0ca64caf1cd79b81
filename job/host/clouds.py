"""What each cloud's metadata service says before it takes a machine away: one small class each, one question a call.

A cloud's times are read on the cloud's own clock, the Date of its answer: the clock of this machine may be wrong.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

DMI = Path("/sys/class/dmi/id")
AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"  # plain Hyper-V has the same vendor and product, not this tag
MACHINE_NAME = re.compile(r"[\w.-]{1,80}")
TIMEOUT_SECONDS = 2.0
ANSWER_BYTES = 1 << 20
SHORTEST_SECONDS = 5.0  # a time that is past already means now
SPOT_SECONDS = 120.0  # what EC2 gives a spot machine


@dataclass(frozen=True)
class Notice:
    reason: str
    seconds: float | None  # until the machine goes away; None: it does not say


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    def seconds_until(self, moment: str) -> float | None:
        """Until an ISO or RFC 1123 time, on the clock of the machine that answered; None where it is no time."""
        then, now = _time(moment), _time(self.headers.get("date", "")) or datetime.now(UTC)
        return None if then is None else max((then - now).total_seconds(), SHORTEST_SECONDS)


class Unreadable(Exception):
    """The service answered with something else than it should."""


class Service(Protocol):
    """One cloud's metadata. `notice` may raise whatever it likes."""

    name: str
    poll_seconds: float

    def notice(self) -> Notice | None: ...


class Ec2:
    """IMDSv2: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations" of its user guide."""

    name, poll_seconds = "EC2", 5.0  # as the guide recommends

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._token: str | None = None
        self._old_advice: str | None = None
        self._advice_read = False

    def notice(self) -> Notice | None:
        if (found := self._get("/latest/meta-data/spot/instance-action")) is not None:
            action = _document(found)
            if action.get("action") not in ("terminate", "stop", "hibernate"):
                raise Unreadable(found.text)
            return Notice(f"EC2 spot notice ({action['action']})", found.seconds_until(str(action.get("time"))))
        return self._rebalance()

    def _rebalance(self) -> Notice | None:
        """A recommendation stays where it is: the one found at the start, already there when an earlier attempt ran
        on this machine, would stop each attempt again without a step. It names no time: as much as a notice gives.
        """
        found = self._get("/latest/meta-data/events/recommendations/rebalance")
        advice = None if found is None else str(_document(found).get("noticeTime"))
        if found is not None and found.seconds_until(str(advice)) is None:
            raise Unreadable(found.text)
        if not self._advice_read:
            self._old_advice, self._advice_read = advice, True
        new = advice is not None and advice != self._old_advice
        return Notice("EC2 rebalance recommendation", SPOT_SECONDS) if new else None

    def _get(self, path: str) -> Answer | None:
        """None where there is nothing; a token that has expired is renewed once."""
        for _ in range(2):
            if self._token is None:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                self._token = _good(_ask(self._endpoint, "/latest/api/token", lifetime, "PUT")).text
            answer = _ask(self._endpoint, path, {"X-aws-ec2-metadata-token": self._token})
            if answer.status != 401:
                break
            self._token = None
        return None if answer.status == 404 else _good(answer)


class Gce:
    """`instance/preempted` turns TRUE about 30 seconds before the machine goes; the answer may be one poll old."""

    name, poll_seconds = "Google Compute Engine", 2.0

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def notice(self) -> Notice | None:
        answer = _good(_ask(self._endpoint, "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}))
        preempted = answer.headers.get("metadata-flavor") == "Google" and answer.text.strip() == "TRUE"
        return Notice("Google Compute Engine preemption", 30.0 - self.poll_seconds) if preempted else None


class Azure:
    """Scheduled events. Preempt, Terminate, Reboot and Redeploy end this process; Freeze pauses it for seconds.

    Only Preempt comes at short notice; the others are announced minutes or days ahead and may be withdrawn.
    """

    name, poll_seconds = "Azure", 5.0

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._own_name: str | None = None

    def notice(self) -> Notice | None:
        answer = _good(_ask(self._endpoint, "/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"}))
        if self._own_name is None:
            self._own_name = self._ask_name()
        events = _document(answer).get("Events")
        if not isinstance(events, list):
            raise Unreadable(answer.text)
        notices = (self._read(answer, event) for event in events if isinstance(event, dict))
        known = [notice for notice in notices if notice is not None]
        return min(known, key=lambda notice: notice.seconds or 0.0, default=None)

    def _read(self, answer: Answer, event: dict[str, object]) -> Notice | None:
        """Events of a scale set's other machines are listed too; where the own name is not known all may be meant."""
        resources = event.get("Resources")
        named = {str(name).lower() for name in resources} if isinstance(resources, list) else set()
        if event.get("EventType") not in ("Preempt", "Terminate", "Reboot", "Redeploy"):
            return None
        if self._own_name is not None and self._own_name.lower() not in named:
            return None
        started = event.get("EventStatus") == "Started"  # its NotBefore is empty then
        seconds = SHORTEST_SECONDS if started else answer.seconds_until(str(event.get("NotBefore")))
        return Notice(f"Azure scheduled event ({event['EventType']})", seconds)

    def _ask_name(self) -> str | None:
        path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        try:
            answer = _ask(self._endpoint, path, {"Metadata": "true"})
        except (OSError, HTTPException, UnicodeDecodeError, Unreadable):
            return None
        name = answer.text.strip()
        return name if answer.status == 200 and MACHINE_NAME.fullmatch(name) else None


def detected(dmi: Path = DMI) -> str:
    """ec2 | gce | azure | none, by the strings that cloud-init's ds-identify goes by; no network is touched."""
    if _firmware(dmi, "sys_vendor") == "Amazon EC2" or "amazon" in _firmware(dmi, "bios_version"):  # Nitro; Xen
        return "ec2"
    if _firmware(dmi, "product_name") == "Google Compute Engine":
        return "gce"
    return "azure" if _firmware(dmi, "chassis_asset_tag") == AZURE_ASSET_TAG else "none"


def _ask(endpoint: str, path: str, headers: Mapping[str, str], method: str = "GET") -> Answer:
    """One question, past every proxy and following no redirect."""
    place = urlsplit(endpoint)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, place.path.rstrip("/") + path, headers=dict(headers))
        response = connection.getresponse()
        text = response.read(ANSWER_BYTES).decode("utf-8")
        if response.length:
            raise Unreadable(f"cut short, {response.length} bytes are missing")
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text)
    finally:
        connection.close()


def _good(answer: Answer) -> Answer:
    if answer.status != 200:
        raise Unreadable(f"status {answer.status}")
    return answer


def _document(answer: Answer) -> dict[str, object]:
    found = json.loads(answer.text)
    if not isinstance(found, dict):
        raise Unreadable(answer.text)
    return found


def _time(text: str) -> datetime | None:
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            moment = parse(text)
        except ValueError:
            continue
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None


def _firmware(dmi: Path, name: str) -> str:
    try:
        return (dmi / name).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
