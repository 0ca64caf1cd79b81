"""Two nodes of eight GPUs and two sockets each; and the golden file of how every rank there is started.

Run as `python -m tests.launching` it writes the golden file anew: look at it before you keep it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from job.cores import cores_of, written
from job.host.launch_plan import Surroundings, launch_plan
from job.host.topology import Topology

GOLDEN = Path(__file__).parent / "golden" / "launch-2x8.json"
SOCKETS = [tuple(sorted(cores_of(cores))) for cores in ("0-31,64-95", "32-63,96-127")]


def node(node_rank: int) -> Topology:
    return Topology("cuda", 8, "ddp", 2, node_rank, "gpu08", 29688)


def plans() -> dict[str, object]:
    """By node; the interpreter has the same name on every machine."""
    around = Surroundings({}, 128, tuple(SOCKETS[gpu // 4] for gpu in range(8)), "eth0")
    found: dict[str, object] = {}
    for node_rank in range(2):
        commands = launch_plan(node(node_rank), Path("/scratch/runs/0f3a"), 41217, around=around)
        python = [{**asdict(one), "argv": ["python", *one.argv[1:]]} for one in commands]
        assert all(one.argv[0] == sys.executable for one in commands)
        found[f"node {node_rank}"] = [{**one, "cpus": written(one["cpus"])} for one in python]
    return found


def text() -> str:
    return json.dumps(plans(), indent=1) + "\n"


if __name__ == "__main__":
    GOLDEN.write_text(text(), encoding="utf-8")
