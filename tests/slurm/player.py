"""A program in sft-job's place: each life of a job leaves with the next of the codes given, or of the signals."""

from pathlib import Path

PLAYER = r"""#!/bin/bash
[ "$SLURM_PROCID" = 0 ] || exit 0
shift # the verb
seen=$PWD/lives-$SLURM_JOB_NAME${SLURM_ARRAY_TASK_ID:-}
echo "$SLURMD_NODENAME" >>"$seen"
life=$(wc -l <"$seen")
code=${!life}
echo "led at ${SFT_JOB_LEADER:-its name}"
case $code in KILL | TERM) kill -s "$code" $$ ;; esac
printf '%s\n0\nthe cause of life %s\n' "$code" "$life" >"$SFT_JOB_EXIT_FILE"
exit "$code"
"""


def write_player(folder: Path) -> Path:
    """Returns a folder for PATH."""
    program = folder / "player" / "sft-job"
    program.parent.mkdir()
    program.write_text(PLAYER, encoding="utf-8")
    program.chmod(0o755)
    return program.parent
