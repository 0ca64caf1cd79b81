"""Ranks of two machines find each other although each machine's own name leads to its loopback."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.host.devices import visible_gpus
from tests.harness import environment

pytestmark = pytest.mark.slow

NODES = ("10.77.0.1", "10.77.0.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them. Neither has a name server, or a name of its own."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and iproute2 for network namespaces")
    names = [f"sft-{os.getpid()}-{number}" for number in range(2)]
    ends = [f"sft{os.getpid() % 100000}{side}" for side in "ab"]
    try:
        try:
            for name in names:
                ip("netns", "add", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are forbidden here: {error.stderr.decode().strip()}")
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, NODES, strict=True):
            ip("link", "set", end, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", end, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.mark.skipif(visible_gpus() > 0, reason="tried with gloo alone")
def test_gloo_listens_where_the_other_machine_can_reach_it(machines: list[str], tmp_path: Path) -> None:
    started = []
    for rank, name in enumerate(machines):
        told = {"SFT_JOB_NODES": "2", "SFT_JOB_NODE_RANK": str(rank), "SFT_JOB_LEADER": NODES[0]}
        hosts = tmp_path / f"hosts-{rank}"
        hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {os.uname().nodename}\n")
        doctor = f"mount --bind {hosts} /etc/hosts && exec {sys.executable} -m job doctor --gpu --device cpu"
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "--mount", "sh", "-c", doctor],
                env=environment(tmp_path / f"home-{rank}", told),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [process.communicate(timeout=120)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0, 0], said
    assert all("exact over 2 ranks" in one for one in said)
