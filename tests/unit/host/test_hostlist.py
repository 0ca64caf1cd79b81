"""Slurm's lists of hosts are expanded as `scontrol show hostnames` does."""

import pytest

from job.errors import ConfigError
from job.host.hostlist import expand


@pytest.mark.parametrize(
    ("hostlist", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3,07],m1", ["n1", "n2", "n3", "n07", "m1"]),
        ("gpu[08-11]", ["gpu08", "gpu09", "gpu10", "gpu11"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("a,b-2.site.org,c[5]-ib", ["a", "b-2.site.org", "c5-ib"]),
        ("n[9-10]", ["n9", "n10"]),
    ],
)
def test_a_list_is_expanded_in_slurms_order(hostlist: str, names: list[str]) -> None:
    assert expand(hostlist) == names


@pytest.mark.parametrize("hostlist", ["n[1-3", "n1-3]", "n[a-b]", "n[3-1]", "n[]", "n[1]]"])
def test_what_is_no_list_is_refused_in_one_line(hostlist: str) -> None:
    with pytest.raises(ConfigError, match="no list of hosts") as caught:
        expand(hostlist)
    assert "\n" not in str(caught.value)
