"""What ranks that failed leave: the cause in a few lines for people; the whole log, or stacks, for the run folder.

Libraries warn a lot; a reader wants the cause. So all they said stays in the log, which outlives this machine.
"""

import re
from dataclasses import dataclass

from job.errors import ConfigError, JobError, NodeLost, RankHung
from job.rundir import RunDir

SHOWN_LINES = 30
WITHOUT_TRACEBACK_LINES = 10
KEPT_BYTES = 1 << 20  # of the log's end
TRACEBACK = "Traceback (most recent call last):"
NOISE = re.compile(r"(.*: )?\w*Warning: |.*\d%\|")  # warnings, progress bars


@dataclass(frozen=True)
class Aftermath:
    """`shown`: lines; `name` and `content`: what is to be kept, `0001-<name>` for attempt 1; "" where nothing is."""

    shown: list[str]
    name: str = ""
    content: bytes = b""


def aftermath(local: RunDir, error: JobError, stacks: str) -> Aftermath:
    """Of one launch. `error`: why it ended; `stacks`: of ranks that hung, else ""."""
    if isinstance(error, RankHung):
        return Aftermath(stacks.splitlines(), "stacks.txt", stacks.encode()) if stacks else Aftermath([])
    if isinstance(error, ConfigError | NodeLost):
        return Aftermath([])  # its message says it all; what ranks then say is that a peer is gone
    rank = f"rank-{failed_rank(error)}"
    try:
        content = local.log(rank).read_bytes()[-KEPT_BYTES:]
    except FileNotFoundError:
        return Aftermath([])
    # Who was killed had no time to say why: what its log ends in is something else.
    lines = [] if "was ended by SIGKILL" in str(error) else cause(content.decode("utf-8", errors="replace"))
    return Aftermath([f"{rank}| {line}" for line in lines], f"{rank}.log", content)


def failed_rank(error: JobError) -> int:
    """Where there are several ranks the message begins with its number."""
    named = re.match(r"(?:node \d+, )?rank (\d+)\b", str(error))
    return int(named[1]) if named else 0


def cause(log: str) -> list[str]:
    """The last traceback; where there is none, the last lines but for warnings, with what is indented below them."""
    lines = log.splitlines()
    begins = [at for at, line in enumerate(lines) if line.startswith(TRACEBACK)]
    if begins:
        return lines[begins[-1] :][-SHOWN_LINES:]
    told, noisy = [], False
    for line in lines:
        noisy = NOISE.match(line) is not None or (noisy and line[:1].isspace())
        if not noisy and line.strip():
            told.append(line)
    return told[-WITHOUT_TRACEBACK_LINES:]
