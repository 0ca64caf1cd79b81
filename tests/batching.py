"""The batch script under bash, with stand-ins for Slurm's commands, a container's and sft-job itself on its PATH.

Run as `python -m tests.batching` it writes slurm/sft-job.sbatch and the golden files anew: look at them before you keep
them.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from job.deploy.slurm import Batch, script
from job.deploy.slurm_options import batch_of, checked

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "slurm" / "sft-job.sbatch"
GOLDEN = ROOT / "tests" / "golden"
BATCHES: dict[str, Batch] = {
    "nodes": checked(
        batch_of(
            None, 0, gpus_per_node="a100:8", gres=None, array=None, output=None,
            extra=["--reservation=x", "-x n1", "--signal=B:USR1@900"], nodes="4", cpus_per_task=64, mem="0",
            time="1-00:00:00", partition="gpu", account="me", qos="high", constraint="[a|b]&c", job_name="chat",
            runtime="apptainer:/images/sft job.sif", bind="/scratch,/data:/data:ro",
        )
    ),
    "array": checked(
        batch_of(Path("table of runs"), 3, gpus_per_node="0", gres=None, array=None, output=None, extra=())
    ),
}  # fmt: skip

RECORD = """printf '%s\\0' "${0##*/}" "$@" $'\\n' >>"$DESK/calls"\n"""
STANDINS = {
    # DESK/states: one line for each question, the last one for all that follow; "away" is no answer.
    "squeue": """
case "$*" in
    *State*)
        told=$(head -n 1 "$DESK/states")
        [ "$(wc -l <"$DESK/states")" -le 1 ] || sed -i 1d "$DESK/states"
        [ "$told" != away ] || { echo "squeue: error: Unable to contact" >&2; exit 1; }
        echo "$told" ;;
    *%e) echo 2030-01-31T18:00:00 ;;
    *%l*) echo '1:00:00|gres:gpu:a100:2|n9|[a|b]' ;;
    *%x) echo "${EXCLUDED:-}" ;;
esac""",
    "scontrol": """
case "$1" in
    -o)
        told=${ABOUT:-}
        [ "$3" != node ] || told=${NODE_TOLD:-}
        [ -z "$told" ] || echo "$told" ;;
    show) printf '%s\\n' n1 n2 n3 ;;
    requeue)
        [ -z "${REFUSED:-}" ] || { echo "$REFUSED" >&2; exit 1; }
        kill -s CONT $PPID; kill -s TERM $PPID $$ ;;
    update) [ "$(wc -l <"$DESK/updates")" -ge "${UPDATES:-0}" ] || { echo >>"$DESK/updates"; echo no >&2; exit 1; } ;;
esac""",
    "sbatch": '[ -z "${NO_SBATCH:-}" ] || { echo "sbatch: error: not from here" >&2; exit 1; }\n'
    'env -0 >"$DESK/follow-up-environment"; echo 4711',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\n[ "$1" != mkdir ] || exit 0\nexec "$@"',
    "sleep": "true",
    "apptainer": """
[ "$1" = exec ] || exit 9
shift
while [ "${1#--}" != "$1" ]; do
    case $1 in
        --env) export "$2"; shift 2 ;;
        --bind | --pwd) shift 2 ;;
        *) shift ;;
    esac
done
shift
exec "$@\"""",
    # What it is asked for stands in its environment: SIGNALS to wait for, CODE to leave with, SILENT to say nothing.
    "sft-job": """
env -0 >"$DESK/environment"
for signal in TERM USR1 USR2; do trap "echo $signal >>'$DESK/heard'" "$signal"; done
echo $$ >"$DESK/started"
for wanted in $(seq "${SIGNALS:-0}"); do
    for _ in $(seq 3000); do [ "$(wc -l <"$DESK/heard")" -lt "$wanted" ] || break; /bin/sleep 0.02; done
    echo "$wanted" >>"$DESK/taken"
done
[ -n "${SILENT:-}" ] || printf '%s\\n' "${CODE:-0}" "${NODE:-0}" "reason of ${CODE:-0}" >"$SFT_JOB_EXIT_FILE"
[ -z "${KILLED:-}" ] || kill -s KILL $$
exit "${SRUN_CODE:-${CODE:-0}}\"""",
}


JOB = {
    "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "chat", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": "n[1-3]",
    "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_PER_NODE": "2", "SLURM_GPUS_ON_NODE": "2",
    "SLURM_JOB_PARTITION": "gpu", "SLURM_MEM_PER_NODE": "4000",
}  # fmt: skip


@dataclass(frozen=True)
class Life:
    """What one life of the job left."""

    code: int
    log: str
    calls: list[list[str]]

    def called(self, program: str, *first: str) -> list[list[str]]:
        return [call for call in self.calls if call[: 1 + len(first)] == [program, *first]]

    @property
    def asked(self) -> list[str]:
        """The programs that change the queue, in their order."""
        return [" ".join(call[:2]) if call[0] == "scontrol" else call[0] for call in self.calls
                if call[0] == "sbatch" or call[:2] in (["scontrol", "requeue"], ["scontrol", "update"])]  # fmt: skip

    @property
    def decision(self) -> str:
        """The log's last line."""
        return self.log.splitlines()[-1].removeprefix("sft-job.sbatch: ")


@dataclass
class Desk:
    """Where a job was submitted. `job`: its own variables, as Slurm sets them."""

    folder: Path
    job: dict[str, str] = field(default_factory=lambda: dict(JOB))

    def __post_init__(self) -> None:
        (self.folder / "bin").mkdir(parents=True)
        for name, body in STANDINS.items():
            program = self.folder / "bin" / name
            program.write_text(f"#!/bin/bash\n{RECORD}{body}\n", encoding="utf-8")
            program.chmod(0o755)
        self.states("RUNNING 0")

    def states(self, *told: str) -> None:
        """What squeue says, one after the other: a state and the number of lives before this one."""
        (self.folder / "states").write_text("".join(f"{line}\n" for line in told), encoding="utf-8")

    def start(self, *arguments: str, text: str | None = None, **environment: str) -> "subprocess.Popen[str]":
        """One life, as Slurm would begin it. `text`: of another script than the shipped one."""
        for name in ("calls", "heard", "taken", "updates", "log"):
            (self.folder / name).write_text("", encoding="utf-8")
        (self.folder / "started").unlink(missing_ok=True)
        path = SHIPPED
        if text is not None:
            path = self.folder / "slurm_script"
            path.write_text(text, encoding="utf-8")
        log = (self.folder / "log").open("w")
        return subprocess.Popen(
            ["bash", str(path), *arguments],
            env={"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", "DESK": str(self.folder), **self.job, **environment},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def end(self, life: "subprocess.Popen[str]") -> Life:
        code = life.wait(60)
        calls = [
            call.split("\0") for call in (self.folder / "calls").read_text(encoding="utf-8").split("\0\n\0") if call
        ]
        return Life(code, (self.folder / "log").read_text(encoding="utf-8"), calls)

    def live(self, *arguments: str, text: str | None = None, **environment: str) -> Life:
        return self.end(self.start(*arguments, text=text, **environment))

    def environment(self, name: str = "environment") -> Mapping[str, str]:
        """What the program inside, or the job that follows, was given."""
        words = (self.folder / name).read_bytes().split(b"\0")
        return dict(os.fsdecode(word).split("=", 1) for word in words if b"=" in word)

    @property
    def left(self) -> list[str]:
        """The script's own files that are still there."""
        return sorted(path.name for path in self.folder.glob(".sft-job*"))


if __name__ == "__main__":
    SHIPPED.write_text(script(Batch()), encoding="utf-8")
    for name, batch in BATCHES.items():
        (GOLDEN / f"slurm-{name}.sbatch").write_text(script(batch), encoding="utf-8")
    sys.exit(0)
