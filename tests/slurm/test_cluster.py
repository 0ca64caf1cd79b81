"""The tests' own cluster: whatever was done to it, nothing is left when it is torn down."""

import subprocess

import pytest

from tests.slurm import nodes
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

STUBBORN = "trap '' TERM; srun --ntasks=2 bash -c 'trap \"\" TERM; touch $HERE/began-$SLURM_PROCID; sleep 600 & wait'"


@pytest.mark.parametrize("isolated", [True, False], ids=["in-namespaces", "without"])
def test_no_process_and_no_file_is_left_of_it_though_a_daemon_died_and_tasks_ignore_signals(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, isolated: bool
) -> None:
    """`cluster`: where there is none, neither is this one."""
    if isolated and not nodes.isolated():
        pytest.skip("no namespaces may be made here")
    monkeypatch.setattr(nodes, "isolated", lambda: isolated)
    with Cluster(2) as own:
        monkeypatch.setenv("HERE", str(own.folder))
        own.command("sbatch", "--nodes=2", "--output=/dev/null", "--wrap", STUBBORN, cwd=own.folder)
        own.wait_until(lambda: all((own.folder / f"began-{number}").exists() for number in range(2)), "both tasks run")
        own.kill_daemon(own.nodes[1])
        assert any("sleep 600" in command for command in own.on_node(own.nodes[1]).values()), "its tasks live on"
        before = own.processes()
    assert len(before) > 10 and not own.processes()
    assert not own.folder.exists()
    mounts = subprocess.run(["cat", "/proc/mounts"], capture_output=True, text=True, check=True, timeout=20).stdout
    assert str(own.folder) not in mounts
