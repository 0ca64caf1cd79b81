"""Every #SBATCH line that the check lets pass is one that sbatch takes, and what it refuses sbatch would not."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from job.deploy.slurm import Batch, script
from job.deploy.slurm_extra import SHORT, WITHOUT_VALUE
from job.deploy.slurm_options import batch_of, checked
from job.errors import ConfigError
from tests.slurm.cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(600)]

NOTHING: dict[str, Any] = {"gpus_per_node": None, "gres": None, "array": None, "output": None, "extra": ()}
TAKEN: list[tuple[str, str]] = [
    *(("mem", mem) for mem in ("0", "0G", "2048", "2g", "2GB", "2gb", "3000M")),
    *(("time", time) for time in ("60", "90:99", "1:30:00", "1-0", "1-12:30", "1-2:3:4", "UNLIMITED", "infinite", "0")),
    *(("nodes", nodes) for nodes in ("2", "1-2", "2-2")),
    *(("gpus_per_node", gpus) for gpus in ("0", "2", "02")),
    *(("gres", gres) for gres in ("gpu", "gpu:2", "gres:gpu:1", "none")),
    *(("array", array) for array in ("0", "1-3", "1-4:9", "3,1,1", "01-02", "1-9%2")),
    *(("job_name", name) for name in ("-x", "微调", "a=b")),
    *(("output", output) for output in ("-x", "logs/%x-%j.out", "a=b,c")),
    *(("extra", extra) for extra in ("-G 2", "-G2", "--gpus=2", "--cpus-per-gpu=3", "--mem-per-cpu=10")),
    *(("extra", extra) for extra in ("--comment='a # b'", '--comment="it\'s"', "'--comment=a b'", "-x 0x7f000002")),
    *(("extra", extra) for extra in ("--exclusive", "--exclusive=user", "--no-requeue", "-H", "--signal=B:USR1@65535")),
]
REFUSED: list[tuple[str, str]] = [
    *(("mem", mem) for mem in ("2 GB", "2Gi", "64B", "1.5G", "-5G")),
    *(("time", time) for time in ("4h", "1:2:3:4", "-1:00")),
    *(("nodes", nodes) for nodes in ("4-2", "1,2", "1-")),
    *(("array", array) for array in ("-1", "5-2", "1-2,5-4", "1-4:0", "1-4000001")),
    *(("gres", gres) for gres in ("gpu=1", "gpu:-1")),
    *(("gpus_per_node", gpus) for gpus in ("gpu:2", "-1", "99999999999")),
    *(("extra", extra) for extra in ("--exclusive --foo", "--comment=a b", "--exclusive user", "foo", "-", "---x")),
    *(("extra", extra) for extra in ("--comment=a\\ b", "-x=n1 n2", "--Comment=x")),
]


def asked(cluster: Cluster, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What sbatch says of a script that it is not to queue."""
    path = folder / "job.sbatch"
    path.write_text(text, encoding="utf-8")
    env = {**os.environ, **cluster.environment}
    return subprocess.run(
        ["sbatch", "--test-only", str(path)], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_what_the_check_lets_pass_sbatch_takes(cluster: Cluster, tmp_path: Path, name: str, value: str) -> None:
    given = {**NOTHING, name: (value,) if name == "extra" else value}
    said = asked(cluster, tmp_path, script(checked(batch_of(None, 0, **given))))
    assert said.returncode == 0 and "to start at" in said.stderr, said.stderr


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_the_check_refuses_sbatch_would_not_take(cluster: Cluster, tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigError):
        checked(batch_of(None, 0, **{**NOTHING, name: (value,) if name == "extra" else value}))
    line = value if name == "extra" else f"--{name.replace('_', '-')}={value}"
    head = script(Batch(gpus_per_node=None)).replace("\n#\n", f"\n#SBATCH {line}\n#\n", 1)
    assert f"#SBATCH {line}\n" in head
    said = asked(cluster, tmp_path, head)
    assert said.returncode != 0, said.stderr


def test_short_options_are_those_of_sbatch(cluster: Cluster) -> None:
    told = re.findall(r"^\s+-(\w),?\s+--([\w-]+)(\S*)", cluster.command("sbatch", "--help"), re.MULTILINE)
    assert {short: name for short, name, _ in told if short in SHORT} == SHORT
    without = {short for short, _, value in told if not value.startswith("=")}
    assert without == set(WITHOUT_VALUE)
