"""What each cloud says, asked over real sockets, and which cloud this machine is taken to be in."""

from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from job.host import clouds
from job.host.clouds import AZURE_ASSET_TAG, Azure, Ec2, Gce, Notice, Unreadable, detected
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


@pytest.fixture
def stub() -> Iterator[MetadataStub]:
    with serving() as stub:
        stub.replies[TOKEN] = Reply(body="secret")
        yield stub


def test_ec2_says_nothing_while_there_is_no_notice(stub: MetadataStub) -> None:
    assert Ec2(stub.url).notice() is None
    assert [name for name, _ in stub.asked] == [TOKEN, SPOT, REBALANCE]


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_an_ec2_spot_notice_gives_the_time_left_on_the_clouds_clock(stub: MetadataStub, action: str) -> None:
    stub.replies[SPOT] = spot(stub, 117, action)
    assert Ec2(stub.url).notice() == Notice(f"EC2 spot notice ({action})", 117.0)
    asked = dict(stub.asked)
    assert "x-aws-ec2-metadata-token-ttl-seconds" in asked[TOKEN]
    assert asked[SPOT]["x-aws-ec2-metadata-token"] == "secret"


def test_a_notice_whose_time_has_passed_still_leaves_a_moment(stub: MetadataStub) -> None:
    stub.replies[SPOT] = spot(stub, -300)
    assert Ec2(stub.url).notice() == Notice("EC2 spot notice (terminate)", clouds.SHORTEST_SECONDS)


def test_an_ec2_notice_without_a_readable_time_is_a_notice(stub: MetadataStub) -> None:
    stub.replies[SPOT] = Reply(body='{"action": "stop", "time": "soon"}')
    assert Ec2(stub.url).notice() == Notice("EC2 spot notice (stop)", None)


def test_the_token_is_asked_for_once_and_renewed_when_it_has_expired(stub: MetadataStub) -> None:
    service = Ec2(stub.url)
    service.notice()
    service.notice()
    assert [name for name, _ in stub.asked].count(TOKEN) == 1
    stub.replies[SPOT] = Reply(401)
    with pytest.raises(Unreadable):
        service.notice()
    assert [name for name, _ in stub.asked].count(TOKEN) == 2
    stub.replies[SPOT] = spot(stub, 60)
    assert service.notice() == Notice("EC2 spot notice (terminate)", 60.0)


def test_a_new_rebalance_recommendation_is_a_notice(stub: MetadataStub) -> None:
    service = Ec2(stub.url)
    assert service.notice() is None
    stub.replies[REBALANCE] = Reply(body=f'{{"noticeTime": "{stub.iso(0)}"}}')
    assert service.notice() == Notice("EC2 rebalance recommendation", 120.0)


def test_a_recommendation_that_an_earlier_attempt_left_behind_stops_no_attempt(stub: MetadataStub) -> None:
    stub.replies[REBALANCE] = Reply(body=f'{{"noticeTime": "{stub.iso(-900)}"}}')
    service = Ec2(stub.url)
    assert service.notice() is None and service.notice() is None
    stub.replies[REBALANCE] = Reply(body=f'{{"noticeTime": "{stub.iso(0)}"}}')
    assert service.notice() is not None


@pytest.mark.parametrize("body,expected", [("TRUE", 28.0), ("TRUE\n", 28.0), ("FALSE", None), ("", None)])
def test_gce_says_whether_it_is_preempted(stub: MetadataStub, body: str, expected: float | None) -> None:
    stub.replies[PREEMPTED] = Reply(body=body, headers=FLAVOR)
    notice = Gce(stub.url).notice()
    assert (notice.seconds if notice else None) == expected
    assert stub.asked[0][1]["metadata-flavor"] == "Google"


def test_another_server_at_gces_address_is_not_believed(stub: MetadataStub) -> None:
    stub.replies[PREEMPTED] = Reply(body="TRUE")
    assert Gce(stub.url).notice() is None


def test_an_azure_eviction_of_this_machine_is_a_notice(stub: MetadataStub) -> None:
    stub.replies[NAME] = Reply(body="trainer_7")
    stub.replies[EVENTS] = events(event(stub, "Preempt", 31, "trainer_3", "Trainer_7"))
    assert Azure(stub.url).notice() == Notice("Azure scheduled event (Preempt)", 31.0)
    assert all(headers["metadata"] == "true" for _, headers in stub.asked)


def test_an_eviction_of_another_machine_of_the_scale_set_is_none(stub: MetadataStub) -> None:
    stub.replies[NAME] = Reply(body="trainer_7")
    stub.replies[EVENTS] = events(event(stub, "Preempt", 31, "trainer_70"))
    assert Azure(stub.url).notice() is None


def test_where_azure_does_not_name_this_machine_every_eviction_may_be_meant(stub: MetadataStub) -> None:
    stub.replies[EVENTS] = events(event(stub, "Preempt", 31, "trainer_70"))
    assert Azure(stub.url).notice() is not None


@pytest.mark.parametrize("kind", ["Terminate", "Reboot", "Redeploy"])
def test_what_ends_the_process_counts_like_an_eviction(stub: MetadataStub, kind: str) -> None:
    stub.replies[EVENTS] = events(event(stub, kind, 900, "a"))
    assert Azure(stub.url).notice() == Notice(f"Azure scheduled event ({kind})", 900.0)


def test_a_freeze_of_a_few_seconds_is_no_reason_to_stop(stub: MetadataStub) -> None:
    stub.replies[EVENTS] = events(event(stub, "Freeze", 900, "a"))
    assert Azure(stub.url).notice() is None


def test_the_soonest_of_several_events_counts_and_one_that_began_is_now(stub: MetadataStub) -> None:
    stub.replies[EVENTS] = events(event(stub, "Reboot", 700, "a"), event(stub, "Preempt", 40, "a"))
    assert Azure(stub.url).notice() == Notice("Azure scheduled event (Preempt)", 40.0)
    stub.replies[EVENTS] = events(event(stub, "Preempt", 40, "a"), event(stub, "Reboot", 0, "a", status="Started"))
    assert Azure(stub.url).notice() == Notice("Azure scheduled event (Reboot)", clouds.SHORTEST_SECONDS)


GARBAGE = [
    Reply(500, "oops"),
    Reply(403, "no"),
    Reply(302, "", {"Location": "http://127.0.0.1:1/"}),
    Reply(200, "<html>TRUE</html>", FLAVOR),
    Reply(200, "[]", FLAVOR),
    Reply(200, '"terminate"', FLAVOR),
    Reply(200, '{"action": "dance"}', FLAVOR),
    Reply(200, '{"Events": {"EventType": "Preempt"}}', FLAVOR),
    Reply(200, '{"Events": ["Preempt", 1, null]}', FLAVOR),
    Reply(200, b"\xff\xfe\x00", FLAVOR),
    Reply(200, '{"action": "term', {"Content-Length": "4000"}),
    Reply(200, "TRUE", {**FLAVOR, "Content-Length": "9"}),
]


@pytest.mark.parametrize("reply", GARBAGE, ids=lambda reply: f"{reply.status} {reply.body!r}")
@pytest.mark.parametrize("service", [Ec2, Gce, Azure])
def test_an_answer_that_is_none_is_no_notice(
    stub: MetadataStub, service: type[Ec2] | type[Gce] | type[Azure], reply: Reply
) -> None:
    for name in (SPOT, PREEMPTED, EVENTS):
        stub.replies[name] = reply
    with suppress(OSError, HTTPException, ValueError, Unreadable):  # what the watching thread shrugs off
        assert service(stub.url).notice() is None


@pytest.mark.parametrize("reply", GARBAGE, ids=lambda reply: f"{reply.status} {reply.body!r}")
def test_a_recommendation_that_is_none_is_no_notice(stub: MetadataStub, reply: Reply) -> None:
    service = Ec2(stub.url)
    assert service.notice() is None
    stub.replies[REBALANCE] = reply
    with pytest.raises((OSError, HTTPException, ValueError, Unreadable)):
        service.notice()


@pytest.mark.parametrize("service", [Ec2, Gce, Azure])
def test_a_proxy_is_never_asked(
    stub: MetadataStub, service: type[Ec2] | type[Gce] | type[Azure], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    stub.replies[PREEMPTED] = Reply(body="FALSE", headers=FLAVOR)
    stub.replies[EVENTS] = events()
    assert service(stub.url).notice() is None
    assert stub.asked


NITRO = {"sys_vendor": "Amazon EC2", "product_name": "p4d.24xlarge"}
XEN = {"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"}
GOOGLE = {"sys_vendor": "Google", "product_name": "Google Compute Engine"}
MICROSOFT = {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}


@pytest.mark.parametrize(
    "firmware,cloud",
    [
        (NITRO, "ec2"),
        (XEN, "ec2"),
        (GOOGLE, "gce"),
        ({**MICROSOFT, "chassis_asset_tag": AZURE_ASSET_TAG}, "azure"),
        ({**MICROSOFT, "chassis_asset_tag": "None"}, "none"),
        ({"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.17"}, "none"),
        ({"sys_vendor": "Google", "product_name": "Eve"}, "none"),
        ({"sys_vendor": "QEMU", "product_name": "Standard PC (Q35 + ICH9, 2009)"}, "none"),
        ({}, "none"),
    ],
)
def test_the_firmware_names_the_cloud(tmp_path: Path, firmware: dict[str, str], cloud: str) -> None:
    for name, value in firmware.items():
        (tmp_path / name).write_text(value + "\n")
    assert detected(tmp_path) == cloud
