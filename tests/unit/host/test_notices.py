"""Each cloud's notice becomes one stop with its deadline; a metadata service that fails costs and stops nothing."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from job.errors import ConfigError
from job.host import clouds, notices
from job.host.clouds import Azure, Ec2, Gce, Notice
from job.host.notices import AZURE_ENDPOINT, CLOUD, QUIET_AFTER, cloud_service, due, pause_seconds, watch
from job.host.preemption import Stop
from tests.unit.host.metadata_stub import (
    EVENTS,
    FLAVOR,
    NAME,
    PREEMPTED,
    REBALANCE,
    SPOT,
    TOKEN,
    MetadataStub,
    Reply,
    event,
    events,
    serving,
    spot,
)

PATIENCE_SECONDS = 60.0
CLOUDS = ("ec2", "gce", "azure")


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataStub]:
    """A service that has nothing to say, asked often."""
    for service in (Ec2, Gce, Azure):
        monkeypatch.setattr(service, "poll_seconds", 0.02)
    monkeypatch.setattr(clouds, "TIMEOUT_SECONDS", 0.1)
    with serving() as stub:
        stub.replies.update(
            {
                TOKEN: Reply(body="secret"),
                PREEMPTED: Reply(body="FALSE", headers=FLAVOR),
                EVENTS: events(),
                NAME: Reply(body="trainer_7"),
            }
        )
        yield stub


def places(stub: MetadataStub, cloud: str) -> dict[str, str]:
    return {
        CLOUD: cloud,
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": stub.url + "/",
        "GCE_METADATA_HOST": stub.host,
        AZURE_ENDPOINT: stub.url,
    }


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def asked_again(stub: MetadataStub, times: int = 4) -> None:
    before = len(stub.asked)
    wait_for(lambda: len(stub.asked) >= before + times)


@pytest.mark.parametrize(
    "cloud,reason,seconds",
    [
        ("ec2", "EC2 spot notice (terminate)", 113.0),
        ("gce", "Google Compute Engine preemption", 30.0 - 0.02),
        ("azure", "Azure scheduled event (Preempt)", 34.0),
    ],
)
def test_a_clouds_notice_becomes_one_stop_with_the_deadline_it_gives(
    stub: MetadataStub, tmp_path: Path, cloud: str, reason: str, seconds: float
) -> None:
    stop = Stop(300)
    assert len(watch(stop, places(stub, cloud), tmp_path)) == 1
    asked_again(stub)
    assert not stop.requested()
    stub.replies[SPOT] = spot(stub, 113)
    stub.replies[PREEMPTED] = Reply(body="TRUE", headers=FLAVOR)
    stub.replies[EVENTS] = events(event(stub, "Preempt", 34, "trainer_7"))
    wait_for(stop.requested)
    asked_again(stub)  # the notice stands there for as long as the machine does
    assert stop.reason == reason
    assert stop.budget_seconds == pytest.approx(seconds)


def test_a_spot_notice_after_a_recommendation_brings_the_deadline_nearer(stub: MetadataStub, tmp_path: Path) -> None:
    stop = Stop(30)
    watch(stop, places(stub, "ec2"), tmp_path)
    asked_again(stub)
    stub.replies[REBALANCE] = Reply(body=f'{{"noticeTime": "{stub.iso(0)}"}}')
    wait_for(stop.requested)
    assert stop.reason == "EC2 rebalance recommendation" and stop.budget_seconds == pytest.approx(120)
    stub.replies[SPOT] = spot(stub, 20)
    wait_for(lambda: stop.budget_seconds < 119)
    assert stop.reason == "EC2 rebalance recommendation"


def test_a_reboot_announced_for_next_week_stops_the_job_when_it_is_near(stub: MetadataStub, tmp_path: Path) -> None:
    stop = Stop(30)
    watch(stop, places(stub, "azure"), tmp_path)
    stub.replies[EVENTS] = events(event(stub, "Redeploy", 7 * 24 * 3600, "trainer_7"))
    asked_again(stub)
    assert not stop.requested()
    stub.replies[EVENTS] = events(event(stub, "Redeploy", 110, "trainer_7"))
    wait_for(stop.requested)
    assert stop.budget_seconds == pytest.approx(110)


def test_what_is_announced_is_due_when_a_stop_needs_the_time() -> None:
    assert due(Notice("spot", 120.0), 30) and not due(Notice("reboot", 121.0), 30)
    assert due(Notice("reboot", 500.0), 600) and not due(Notice("reboot", 700.0), 600)
    assert due(Notice("spot", None), 30)


BROKEN = {
    "404": Reply(404, "Not Found"),
    "500": Reply(500, "oops"),
    "403": Reply(403, "metadata is off"),
    "garbage": Reply(200, b"\x00\xff{]"),
    "an empty document": Reply(200, "{}"),
    "cut short": Reply(200, '{"action": "terminate"', {"Content-Length": "4000"}),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_service_that_fails_stops_nothing_and_is_heard_when_it_is_back(
    stub: MetadataStub, tmp_path: Path, cloud: str, reply: Reply
) -> None:
    well = dict(stub.replies)
    stub.replies.update(dict.fromkeys((TOKEN, SPOT, REBALANCE, PREEMPTED, EVENTS, NAME), reply))
    stop = Stop(30)
    watch(stop, places(stub, cloud), tmp_path)
    asked_again(stub)
    assert not stop.requested()
    stub.replies.clear()
    stub.replies.update(well)
    asked_again(stub)
    assert not stop.requested()
    stub.replies[SPOT] = spot(stub, 100)
    stub.replies[PREEMPTED] = Reply(body="TRUE", headers=FLAVOR)
    stub.replies[EVENTS] = events(event(stub, "Preempt", 100, "trainer_7"))
    wait_for(stop.requested)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_service_that_hangs_stops_nothing_and_is_asked_again(stub: MetadataStub, tmp_path: Path, cloud: str) -> None:
    stub.hanging = True
    stop = Stop(30)
    watch(stop, places(stub, cloud), tmp_path)
    asked_again(stub)
    assert not stop.requested() and stop.seconds_left == float("inf")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_service_that_goes_away_stops_nothing(
    stub: MetadataStub, tmp_path: Path, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as leaving:
        leaving.replies.update(stub.replies)
        stop = Stop(30)
        watch(stop, places(leaving, cloud), tmp_path)
        asked_again(leaving)
    failed: list[int] = []
    monkeypatch.setattr(notices, "pause_seconds", lambda service, failures: failed.append(failures) or 0.02)
    wait_for(lambda: max(failed, default=0) >= 4)
    assert not stop.requested()


def test_after_many_failures_in_a_row_a_service_is_asked_seldom() -> None:
    service = Ec2("http://127.0.0.1:1")
    assert pause_seconds(service, 0) == pause_seconds(service, QUIET_AFTER - 1) == 5.0
    assert pause_seconds(service, QUIET_AFTER) == pause_seconds(service, 10_000) == 60.0


def test_elsewhere_nothing_is_watched(tmp_path: Path) -> None:
    assert watch(Stop(30), {}, tmp_path) == []


def test_a_cloud_found_in_the_firmware_is_watched_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert isinstance(cloud_service({}, tmp_path), Ec2)
    assert cloud_service({CLOUD: "none"}, tmp_path) is None
    assert cloud_service({"AWS_EC2_METADATA_DISABLED": "true"}, tmp_path) is None
    assert isinstance(cloud_service({CLOUD: "gce"}, tmp_path), Gce)
    assert isinstance(cloud_service({CLOUD: "azure"}, tmp_path), Azure)


def test_a_cloud_nobody_knows_is_a_mistake_with_the_names_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SFT_JOB_CLOUD is 'aws': set it to ec2, gce, azure or none"):
        cloud_service({CLOUD: "aws"}, tmp_path)


def test_a_limit_that_was_raised_meanwhile_is_noticed_before_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm's own tool stands in: half a minute is left when the job begins, an hour when it is asked once more."""
    tool = tmp_path / "squeue"
    asked = tmp_path / "asked"
    tool.write_text(f"#!/bin/sh\necho x >> {asked}\n[ $(wc -l < {asked}) = 1 ] && echo 42 0:32 || echo 42 1:00:00\n")
    tool.chmod(0o755)
    stop, said = Stop(30), list[str]()
    watch(stop, {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}, tmp_path, said.append)
    wait_for(lambda: said)
    assert said == ["the job's limit was raised: it ends in 60 min"]
    later = time.monotonic() + 60
    monkeypatch.setattr("job.host.preemption.time.monotonic", lambda: later)
    assert not stop.requested()


def test_a_limit_that_stands_is_asked_for_only_once_more(tmp_path: Path) -> None:
    tool = tmp_path / "squeue"
    tool.write_text(f'#!/bin/sh\necho x >> {tmp_path}/asked\necho "42 0:40"\n')
    tool.chmod(0o755)
    before = set(threading.enumerate())
    watch(Stop(30), {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "42"}, tmp_path)
    wait_for(lambda: not {thread for thread in threading.enumerate() if thread.name == "end"} - before)
    assert (tmp_path / "asked").read_text() == "x\nx\n"


def test_the_jobs_end_asks_for_the_stop_and_is_told(tmp_path: Path) -> None:
    stop = Stop(30)
    lines = watch(stop, {"SFT_JOB_END_TIME": str(time.time() + 3620)}, tmp_path)
    assert lines == ["this job ends in 60 min; it stops by itself 30s before"]
    assert not stop.requested()
    nearly_over = Stop(30)
    watch(nearly_over, {"SFT_JOB_END_TIME": str(time.time() + 29)}, tmp_path)
    assert nearly_over.requested() and nearly_over.reason == "the job's end time"
    assert nearly_over.budget_seconds <= 29
