"""A Slurm cluster of several nodes on this machine: every socket, port, key and log its own, and nothing left of it.

Its daemons are started by hand, without systemd and by any user. Node names are loopback addresses in the one spelling
that is also a host name to Slurm and an address to every resolver, so that a node is reached by its name as elsewhere.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.servers import free_port
from tests.slurm import nodes, settings

START_SECONDS = 60.0
STOP_SECONDS = 60.0
MISSING = "is not installed (Debian: apt-get install slurmctld slurmd slurm-client munge)"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")


def program(name: str) -> str:
    """Its path, or "": daemons lie where not every user's PATH leads."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path) or ""


def missing() -> str | None:
    """Why there can be no cluster here."""
    return next((f"{name} {MISSING}" for name in NEEDED if not program(name)), None)


class Cluster:
    """Up while the block lasts. Its folder can be read by every user: jobs are theirs."""

    def __init__(self, count: int = 4) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.folder.chmod(0o755)
        self.nodes = [settings.node_name(number) for number in range(1, count + 1)]
        self.mark = f"SFT_TEST_CLUSTER={os.getpid()}-{secrets.token_hex(4)}"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
        self._controller_port, self._ports = free_port(), {name: free_port() for name in self.nodes}
        for name in ("munge", "state", "spool", "log", "run", "local", "aside"):
            (self.folder / name).mkdir()
        (self.folder / "local").chmod(0o1777)
        self.environment = {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            **dict([self.mark.split("=", 1)]),
        }

    # ---- up and down

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.configure()
        (self.folder / "gres.conf").write_text(settings.gres(self.nodes), encoding="utf-8")
        prolog = self.folder / "task_prolog"
        prolog.write_text(settings.TASK_PROLOG.format(folder=self.folder), encoding="utf-8")
        prolog.chmod(0o755)
        self._start_munge()
        self._daemon("slurmctld", [program("slurmctld"), "-D", "-i"])
        for name in self.nodes:
            self.start_node(name)
        self.wait_until(lambda: all(state == "idle" for state in self.states().values()), "all nodes are idle")

    def _start_munge(self) -> None:
        key = self.folder / "munge" / "key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        places = [
            f"--{what}={self.folder / 'munge' / what}" for what in ("socket", "pid-file", "log-file", "seed-file")
        ]
        self._daemon("munged", [program("munged"), "--foreground", "--force", f"--key-file={key}", *places])
        self.wait_until((self.folder / "munge" / "socket").is_socket, "munged listens")

    def _daemon(self, name: str, command: list[str], **extra: str) -> None:
        """Of this process's environment only what a daemon needs: a job is to have its submitter's, not this one."""
        with (self.folder / "log" / name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command,
                env={"PATH": self._path, "LC_ALL": "C", **self.environment, **extra},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )

    def start_node(self, name: str) -> None:
        # slurmstepd writes its title over the first of what it inherits: the marks come last.
        marks = [f"{key}={value}" for key, value in {**self.environment, "SFT_TEST_NODE": name}.items()]
        first = ["env", "-i", f"FIRST={'.' * 500}", f"PATH={self._path}", "LC_ALL=C", *marks]
        slurmd = [*first, program("slurmd"), "-D", "-N", name]
        self._daemon(name, nodes.command(slurmd, self.folder / "aside"), SFT_TEST_NODE=name)

    def __exit__(self, *_: object) -> None:
        """Jobs first, daemons after, then whatever of a killed node's is left; the folder last."""
        with contextlib.suppress(subprocess.SubprocessError, AssertionError, OSError):
            if self._daemons.get("slurmctld") and self._daemons["slurmctld"].poll() is None:
                self.cancel_all()
                self.wait_until(lambda: not self.command("squeue", "-h"), "all jobs are gone", 10.0)
        for daemon in self._daemons.values():
            daemon.terminate()
        self.kill_left()
        for daemon in self._daemons.values():
            daemon.wait(STOP_SECONDS)
        if os.environ.get("SFT_TEST_KEEP") is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what is there

    def configure(self, **changes: str) -> None:
        """Write slurm.conf, with some settings otherwise than usual."""
        text = settings.conf(self.folder, self._controller_port, self._ports, getpass.getuser(), changes)
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")

    def reconfigure(self, **changes: str) -> None:
        self.configure(**changes)
        self.command("scontrol", "reconfigure")

    def command(self, *words: str, check: bool = True, **extra: Any) -> str:
        """What a Slurm command of this cluster says on stdout."""
        env = {**os.environ, **self.environment}
        said = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, **extra)
        assert not check or said.returncode == 0, f"{' '.join(words)}: {said.stderr or said.stdout}\n{self.logs()}"
        return said.stdout.strip()

    def cancel_all(self) -> None:
        if numbers := self.command("squeue", "-h", "-o", "%A").split():
            self.command("scancel", *numbers, check=False)

    def mend(self) -> None:
        """Every node is up again."""
        for name in self.nodes:
            if not self._slurmds(name):
                self.kill_node(name)
                self.start_node(name)
        self.wait_until(self._resumed, "all nodes are up")

    def _resumed(self) -> bool:
        """Those that were set down come back when they are told to, and only after they have answered."""
        for name, state in self.states().items():
            if state.startswith("down"):
                self.command("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        return set(self.states().values()) <= {"idle", "mixed", "allocated", "completing"}

    def states(self) -> dict[str, str]:
        lines = self.command("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
        told = dict(line.split() for line in lines)
        return {name: told.get(name, "unknown") for name in self.nodes}

    def wait_until(self, what: Callable[[], object], promise: str, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {promise}\n{self.logs()}"
            time.sleep(0.05)

    def logs(self, lines: int = 15) -> str:
        """The end of each daemon's."""
        logs = sorted((self.folder / "log").glob("*"))
        said = {log.name: log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:] for log in logs}
        return "\n".join(f"---- {name}\n" + "\n".join(last) for name, last in said.items() if last)

    # ---- processes

    def processes(self, *marks: str) -> dict[int, str]:
        """Every living one that this cluster started and whose environment holds one of `marks`, if there are any."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit() or int(entry.name) == os.getpid():
                    continue
                told = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if self.mark in told and (not marks or set(marks) & set(told)) and command:  # a zombie has none
                    found[int(entry.name)] = command
        return found

    def on_node(self, name: str) -> dict[int, str]:
        """slurmd and its steps have one mark, the jobs' processes, whose environment is their submitter's, another."""
        return self.processes(f"SFT_TEST_NODE={name}", f"SLURMD_NODENAME={name}")

    def kill_daemon(self, name: str) -> None:
        """slurmd alone; its steps do not notice."""
        for pid in self._slurmds(name):
            os.kill(pid, signal.SIGKILL)

    def _slurmds(self, name: str) -> list[int]:
        return [pid for pid, command in self.on_node(name).items() if command.startswith(program("slurmd"))]

    def kill_node(self, name: str) -> None:
        """All of its processes, as when its power fails."""
        self._daemons[name].kill()
        self._kill_all(lambda: self.on_node(name))
        self._daemons[name].wait(STOP_SECONDS)

    def kill_left(self) -> None:
        self._kill_all(self.processes)

    def _kill_all(self, found: Callable[[], dict[int, str]]) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while (left := found()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
