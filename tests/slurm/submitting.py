"""Batch jobs as a user submits them: sbatch in a folder of one's own, the log read, the state asked for."""

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness import PATIENCE_SECONDS, ROOT, environment
from tests.slurm.cluster import Cluster
from tests.slurm.pace import Pace

OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL"}
TOLD = ("JobId", "JobState", "Reason", "Restarts", "ExitCode", "StartTime", "EndTime", "NodeList")  # where a test fails
SCRIPT = ROOT / "slurm" / "sft-job.sbatch"


@dataclass(frozen=True)
class Batch:
    """One job in the queue, through all of its lives; or one task of an array (ARRAY_TASK)."""

    cluster: Cluster
    number: str

    def facts(self) -> dict[str, str]:
        """As `scontrol show job` has them, by its names."""
        said = self.cluster.command("scontrol", "--oneliner", "show", "job", self.number)
        return dict(word.split("=", 1) for word in said.splitlines()[0].split(" ") if "=" in word)

    def left(self) -> bool:
        """Whether nothing of it is in the queue any more, also no node that is to be cleared."""
        return not self.cluster.command("squeue", "-h", "-j", self.number, check=False)

    def state(self) -> str:
        return self.facts()["JobState"]

    def restarts(self) -> int:
        return int(self.facts()["Restarts"])

    def nodes(self) -> list[str]:
        return self.cluster.command("scontrol", "show", "hostnames", self.facts()["NodeList"]).split()

    def said(self) -> str:
        log = Path(self.facts()["StdOut"])
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def last_line(self) -> str:
        return self.said().splitlines()[-1]

    def decisions(self) -> list[str]:
        """What the script said at the end of each life."""
        return re.findall(r"^sft-job\.sbatch: (.*)$", self.said(), re.MULTILINE)

    # ---- waiting

    def until(self, what: Callable[[], object], promise: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Raises: AssertionError with all that is known where it takes too long, or the job ends before."""
        deadline = time.monotonic() + seconds
        while True:
            over = self.state() in OVER
            if what():
                return
            assert not over, f"the job ended before: {promise}\n{self.told()}"
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {promise}\n{self.told()}"
            time.sleep(0.1)

    def told(self) -> str:
        told = "".join(f"{name}={value} " for name, value in self.facts().items() if name in TOLD)
        return f"{told}\n---- log\n{self.said()}\n{self.cluster.logs()}"

    def wait_for(self, pattern: str, seconds: float = PATIENCE_SECONDS) -> re.Match[str]:
        """Until the log holds `pattern`."""
        self.until(lambda: re.search(pattern, self.said()), repr(pattern), seconds)
        found = re.search(pattern, self.said())
        assert found
        return found

    def wait_for_commit(self, step: int) -> None:
        """Of at least `step`: on a busy machine the newest snapshot overtakes older ones."""
        self.until(lambda: self.committed() >= step, f"a commit of step {step}")

    def committed(self) -> int:
        found = re.findall(r"step ([\d,]+)/[\d,]+  committed", self.said())
        return max((int(step.replace(",", "")) for step in found), default=0)

    def ended(self, seconds: float = 2 * PATIENCE_SECONDS) -> tuple[str, int]:
        """The last life's state and exit code. A job that goes back into the queue has not ended."""
        self.until(lambda: self.state() in OVER, "its end", seconds)
        facts = self.facts()
        return facts["JobState"], int(facts["ExitCode"].partition(":")[0])

    def finished(self) -> str:
        """Its log, where it ended well."""
        assert self.ended() == ("COMPLETED", 0), self.told()
        return self.said()

    # ---- what is done to it

    def processes(self) -> dict[int, str]:
        return self.cluster.processes(f"SLURM_JOB_ID={self.facts()['JobId']}")

    def ranks(self) -> list[int]:
        return sorted(pid for pid, command in self.processes().items() if "-m job.train " in command)

    def scancel(self, *options: str) -> None:
        self.cluster.command("scancel", *options, self.number)


@dataclass(frozen=True)
class Desk:
    """A folder from which jobs are submitted."""

    cluster: Cluster
    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    jobs: list[Batch] = field(default_factory=list)

    def slow(self, seconds_per_step: float = 0.5, task: str = "") -> Pace:
        """From its first commits on, in its first life: so that what is to happen to a run happens before its end."""
        return Pace(self.folder / "pace", seconds_per_step, task)

    def environment(self) -> dict[str, str]:
        whole = environment(self.folder / "home", {**self.cluster.environment, **self.extra})
        del whole["SFT_JOB_HOME"]  # a node chooses its own
        path = f"{self.cluster.folder / 'bin'}:{whole['PATH']}"
        own = {"PATH": path, "SFT_JOB_ALLOW_CODE": "1", "SFT_TEST_PACE": str(self.folder / "pace")}
        return {**whole, **own, **self.extra}

    def sbatch(
        self, arguments: Sequence[str], *options: str, user: Sequence[str] = (), script: Path = SCRIPT, **extra: str
    ) -> Batch:
        """`options` are sbatch's own; `arguments` the script's; `user`: a command that becomes somebody else."""
        words = [*user, "sbatch", "--parsable", *options, str(script), *arguments]
        env = {**self.environment(), **extra}
        said = subprocess.run(words, env=env, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, said.stderr
        self.jobs.append(Batch(self.cluster, said.stdout.strip().partition(";")[0]))
        return self.jobs[-1]

    def push_out(self, job: Batch) -> Batch:
        """Submit a job of a higher partition for all of the nodes that `job` has."""
        nodes = ",".join(job.nodes())
        options = [f"--nodelist={nodes}", f"--nodes={nodes.count(',') + 1}", "--partition=high", "--exclusive"]
        return self.sbatch([], *options, "--output=/dev/null", script=self._urgent())

    def _urgent(self) -> Path:
        script = self.folder / "urgent.sh"
        script.write_text("#!/bin/sh\nsleep 1\n", encoding="utf-8")
        return script

    def clear(self) -> None:
        """None of its jobs is left, not a process of theirs either, and every node is up again."""
        for job in self.jobs:
            self.cluster.command("scancel", job.number, check=False)
        for job in self.jobs:
            self.cluster.wait_until(lambda job=job: job.left(), f"job {job.number} has left the queue")
        self.cluster.mend()
        for job in self.jobs:
            self.cluster.wait_until(lambda job=job: not job.processes(), f"nothing of job {job.number} runs")
