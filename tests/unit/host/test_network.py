"""The interface towards the leader is one that other machines reach, even where its name leads to a loopback."""

import socket

import pytest

from job.host import network
from job.host.network import interface_towards, interface_with


def test_the_interface_of_an_address_is_found_by_that_address() -> None:
    assert interface_with("127.0.0.1") == "lo"
    assert interface_with("203.0.113.77") is None


def test_towards_a_loopback_it_is_that_of_the_default_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a leader whose own name stands for 127.0.1.1 in /etc/hosts."""
    own = default_address()
    monkeypatch.setattr(network, "_addresses", lambda host: [(int(socket.AF_INET), "127.0.1.1")])
    found = interface_towards("leader")
    assert found != "lo"
    assert found == (interface_with(own) if own else None)


def test_an_address_of_this_machine_leads_to_its_own_interface() -> None:
    own = default_address()
    if own is None:
        pytest.skip("this machine has no address but its loopback")
    assert interface_towards(own) == interface_with(own) is not None


def test_where_no_route_leads_anywhere_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "ANYWHERE", ())
    assert interface_towards("127.0.0.1") is None
    assert interface_towards("no such host") is None


def default_address() -> str | None:
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((anywhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return None
